"""The tractable models, and the queries that all of them answer."""

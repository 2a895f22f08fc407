TABLES = all_runs("metrics/{name}/seed-{seed}/density.csv", [*TEACHERS, *BASELINES])
FIGURES = []

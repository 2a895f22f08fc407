"""docs/performance.md and its plots, from the tables that the benchmarks write."""

from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import pandas as pd
from matplotlib.figure import Figure

from vqdistill.files import replacing
from vqdistill.provenance.records import environment
from vqdistill.reporting.style import COLUMN_WIDTH, FREE_COLOURS, RC


class Goal(NamedTuple):
    """How many times faster than a peer vqdistill must be, at one size of a task."""

    task: str
    size: int
    peer: str
    times: float


GOALS = [  # a goal of 0: told without one
    Goal("mixture", 4096, "broadcast", 25),
    Goal("mixture", 4096, "torch.distributions", 0),
    Goal("mixture", 4096, "scikit-learn", 1.5),
    Goal("mixture", 4096, "matrix product", 0),
    Goal("conditional", 4096, "broadcast", 15),
    Goal("exact", 32, "naive", 30),
    Goal("DMBS", 1024, "full passes", 8),
    Goal("DMRS", 1024, "full passes", 8),
    Goal("CM density", 4096, "broadcast", 5),
    Goal("CM step", 4096, "broadcast", 0),
    Goal("EiNet", 4, "einsum and autograd", 4),
    Goal("EiNet", 10, "einsum and autograd", 4),
    Goal("EiNet", 20, "einsum and autograd", 4),
    Goal("EiNet", 4, "units first", 4),
    Goal("EiNet", 10, "units first", 4),
    Goal("EiNet", 20, "units first", 4),
    *(
        Goal("quad-tree", size, peer, 2)
        for peer in ("autograd and Adam", "layers of the EiNet")
        for size in (4, 8, 16)
    ),
    Goal("VQ-VAE 2x2", 256, "plain loop", 0),
    Goal("VQ-VAE 4x4", 256, "plain loop", 0),
    Goal("prior 2x2", 256, "plain loop", 0),
    Goal("prior 4x4", 256, "plain loop", 0),
]
LIMITS = {  # seconds that commands may take
    "figures": 20,
    "report": 20,
    "dry run of config.yaml": 10,
    "help": 0.5,
    "import": 0.5,
}
OVERHEAD = 1.25  # of the quick preset, over the computing time of its steps
TASKS = {
    "mixture": (
        "Log-likelihood of a mixture",
        "The task is log p(x) of 2,000 images of 784 pixels. Components have σ down to 1e-3. Images"
        " and components are like different digits of scikit-learn's. The peers are (x − μ)²/σ² by"
        " broadcasting in chunks, `torch.distributions.MixtureSameFamily`, scikit-learn's"
        " `GaussianMixture.score_samples`, and a float32 matrix product of the same size. All agree"
        " with a direct evaluation in float64, vqdistill to 1e-6 bits per dimension.",
        "components N",
    ),
    "conditional": (
        "Conditional log-likelihood",
        "The task is log p(x_u | x_o) of the same mixtures, with one half of the images hidden.",
        "components N",
    ),
    "exact": (
        "ExM",
        "The task is log p(x) of 1,000 images under the mixture over all K⁴ latents of a 2×2 grid,"
        " from the prior to the sum. The naive way evaluates the prior once a latent and class, and"
        " broadcasts the density. It was timed on 512 latents.",
        "codebook size K",
    ),
    "DMBS": (
        "DMBS",
        "The task is a beam search for all classes with a prior of the paper's size (10 layers of"
        " 512 channels, K = 4096, grid 4×4). The peer runs the whole PixelCNN for each position. It"
        " was timed on one class.",
        "components N",
    ),
    "DMRS": (
        "DMRS",
        "The task is to draw ancestral samples from the same prior. The peer was timed on 64"
        " samples.",
        "components N",
    ),
    "CM density": (
        "Density of a continuous mixture",
        "The task is log p(x) of 128 images and its gradient for all means and deviations, as in"
        " training. There vqdistill takes one float32 product, which is off by nats where σ is near"
        " 1e-3. Validation and evaluation are exact.",
        "integration points",
    ),
    "CM step": (
        "Training step of a continuous mixture",
        "The task is a whole step with the paper's decoder, forward and backward. The peer"
        " broadcasts the density, which is most of the difference.",
        "integration points",
    ),
    "EiNet": (
        "E-step of an EiNet",
        "The task is to take the expected counts of all parameters for 128 images of 28×28 pixels,"
        " with pieces of 4×4. The peers evaluate the same circuit in log-space with one einsum a"
        " layer, and take the counts from autograd. The quicker peer has units as the last"
        " dimension of its tensors. The other has units before partitions, as the EiNet authors'"
        " code does.",
        "units K",
    ),
    "quad-tree": (
        "Training step of a quad-tree",
        "The task is an E-step and an M-step with 128 images of 28×28 pixels. One peer is the same"
        " circuit in log-space, one einsum a layer, with softmax weights and Adam. The other is an"
        " EiNet of the same regions, each cut in two and in two again, by this package's own layers"
        " and EM.",
        "units K",
    ),
}


TRAINED = """The rows of VQ-VAEs and priors are one epoch over 1,797 digits of 28×28 pixels, in
batches of 128, with the networks of the laptop preset. A plain loop is the same network with
torch.distributions or masked convolutions, fed by a DataLoader that transforms image by image. For
priors the plain loop encodes the codes of each batch anew.
"""

GPU = """Training steps are those of the paper's networks, with batches of 128. Their kernels are
recorded once and launched together (`tests/test_gpu.py`). Evaluation takes products in float32 or
float64. TF32 would move the bits per dimension of single reconstructed images by {1:.2g}, and by
{0:.2g} on average, since standard deviations of 10^-3 ask for more than its ten bits.
"""

LEARNT = """## What to know when you read this

- *Peers vary.* They spend much time on asking the system for memory. torch.distributions took
  between 11 and 66 s from run to run, the broadcast between 4.6 and 6.3 s, and for conditionals
  between 5.6 and 9.0 s. A goal can be reached in one run and missed in another.
- *Conditionals.* The joint and the marginal come from one pass. Several masks are best asked
  together (`marginals`, `completions`), since they share one pass over the components.
- *EiNet.* The quicker peer has units as the last dimension of its tensors. The order of the EiNet
  authors' code (`units first`) takes about twice as long at K = 10 and 20.
- *GPU.* Jobs that share a GPU take turns. Six trainings at a time took six times as long each.
- *Quick preset.* Its jobs compute for two seconds or so. Starting one takes more than a second,
  nearly all of it PyTorch's import.
"""


def write(results: Path, docs: Path) -> None:
    """Write the page and its plots from all tables in `results`."""
    tables = {path.stem: pd.read_csv(path) for path in sorted(results.glob("*.csv"))}
    parts = [
        "# How fast it is\n",
        "`uv run pytest benchmarks` measures the numbers of this page and writes it from"
        " `results/benchmarks/*.csv`.\n",
        "All times of a task are from one run on one machine, with the same number of threads for"
        " all. A time is the least of several rounds after one that warms up, or that of a single"
        " round where one takes long (`rounds`). Peers take the fastest of several chunk sizes."
        " Slow peers were timed on a part of the work and scaled (`share`). The goal is how many"
        " times faster vqdistill should be.\n",
        _machines(tables),
        "## Beside what you would use instead\n",
        _goals(tables),
        TRAINED,
        _queries(tables),
        _commands(tables),
        _laptop(results.parent / "reference/laptop/tables/timings.csv"),
        _fractions(tables),
        _gpu(tables),
        _memory(tables),
        _profiles(tables),
        LEARNT,
    ]
    for task, (title, text, size) in TASKS.items():
        if task in tables:
            name = task.lower().replace(" ", "-")
            with replacing(docs / "performance" / f"{name}.png") as path:
                _plot(tables[task], size).savefig(path, dpi=200, format="png")
            parts.append(f"## {title}\n\n{text}\n\n![{title}](performance/{name}.png)\n")
    with replacing(docs / "performance.md") as page:
        page.write_text("\n".join(parts), encoding="utf-8")


def fastest(table: pd.DataFrame) -> pd.DataFrame:
    """Seconds by implementation and size, of the fastest variant."""
    return table.pivot_table("seconds", "size", "implementation", aggfunc="min")


def rounded(value: float) -> str:
    """Two digits, three for what is below 10, and no exponents."""
    return f"{value:.3g}" if value < 10 else f"{float(f'{value:.2g}'):,.0f}"


def machine() -> str:
    """What the benchmarks run on, and with."""
    facts = environment("cpu")
    return f"{facts['hardware']}, PyTorch {facts['libraries']['torch']}"


def _machines(tables: dict[str, pd.DataFrame]) -> str:
    """Which tasks were last run on which machine, with how many threads."""
    tasks = pd.DataFrame(
        [
            (f"{table['machine'].iloc[0]}, {table['threads'].iloc[0]} threads", name)
            for name, table in tables.items()
            if "machine" in table
        ],
        columns=["machine", "task"],
    )
    parts = [f"{where}: {', '.join(of['task'])}" for where, of in tasks.groupby("machine")]
    return "Where they were last run: " + "; ".join(parts) + f". {EARLIER}\n"


EARLIER = (
    "**What was run on the Intel Xeon or the H100 is of an earlier version**, with kernels of its"
    " own for networks and densities; it is still to be timed again."
)


def _goals(tables: dict[str, pd.DataFrame]) -> str:
    rows = ["| task | size | instead | takes | vqdistill | ratio | goal |", "|---" * 7 + "|"]
    for goal in GOALS:
        if goal.task not in tables or goal.size not in tables[goal.task]["size"].values:
            continue
        seconds = fastest(tables[goal.task]).loc[goal.size]
        ratio = seconds[goal.peer] / seconds["vqdistill"]
        verdict = "reached" if ratio >= goal.times else "**missed**"
        rows.append(
            f"| {goal.task} | {goal.size} | {goal.peer} | {rounded(seconds[goal.peer])} s |"
            f" {seconds['vqdistill']:.3g} s | {rounded(ratio)} |"
            + (f" {goal.times:g}: {verdict} |" if goal.times else " – |")
        )
    return "\n".join(rows) + "\n"


def _queries(tables: dict[str, pd.DataFrame]) -> str:
    """What a quad-tree answers, and in how long."""
    if "queries" not in tables:
        return ""
    seconds = fastest(tables["queries"]).T
    rows = [
        "## Queries of a quad-tree\n",
        f"| milliseconds for 1,000 images | {' | '.join(f'K = {k}' for k in seconds)} |",
        "|---" * (1 + seconds.shape[1]) + "|",
    ]
    order = tables["queries"]["implementation"].unique()
    rows += [
        f"| {query} | {' | '.join(rounded(1e3 * value) for value in seconds.loc[query])} |"
        for query in order
    ]
    said = "Ten classes, known by the root and two levels. All are exact, in float64.\n"
    return "\n".join([*rows, "", said])


def _commands(tables: dict[str, pd.DataFrame]) -> str:
    if "commands" not in tables:
        return ""
    rows = ["## Commands\n", "| command | takes | goal |", "|---|---|---|"]
    for row in tables["commands"].itertuples():
        if row.implementation in LIMITS:
            limit = LIMITS[row.implementation]
            verdict = "reached" if row.seconds <= limit else "**missed**"
            rows.append(f"| {row.implementation} | {row.seconds:.3g} s | {limit:g} s: {verdict} |")
        else:
            ratio = row.seconds / row.computing
            verdict = "reached" if ratio <= OVERHEAD else "**missed**"
            rows.append(
                f"| {row.implementation}: {row.jobs:.0f} jobs that compute | {row.seconds:.3g} s,"
                f" {ratio:.2f} times the {row.computing:.3g} s that they compute on each core;"
                f" starting Python and importing libraries takes {row.starting:.3g} s |"
                f" {OVERHEAD:g}: {verdict} |"
            )
    return "\n".join(rows) + "\n"


def _laptop(timings: Path) -> str:
    """What the laptop preset's jobs take, from the timings of its reference."""
    if not timings.exists():
        return ""
    jobs = pd.read_csv(timings).groupby("step")["wall_seconds"].agg(["size", "sum", "max"])
    rows = [
        "## The laptop preset, five seeds\n",
        "| rule | jobs | core-minutes | longest job |",
        "|---|---|---|---|",
    ]
    rows += [
        f"| `{rule}` | {job['size']:.0f} | {job['sum'] / 60:.1f} | {job['max']:.0f} s |"
        for rule, job in jobs.sort_values("sum", ascending=False).iterrows()
    ]
    said = "Times are from the reference, without the second that Python takes to start a job.\n"
    return "\n".join([*rows, "", said])


def _fractions(tables: dict[str, pd.DataFrame]) -> str:
    """Of the machine's peak that training steps of the paper's networks reach."""
    if "paper" not in tables:
        return ""
    table = tables["paper"].set_index("implementation")
    speed = table["operations"] / table["seconds"]
    rows = [
        "## Training steps of the paper's networks, on a CPU\n",
        "| training step | takes | of a matrix product's speed |",
        "|---|---|---|",
    ]
    rows += [
        f"| {name} | {table['seconds'][name]:.3g} s | {speed[name] / speed['matrix product']:.0%} |"
        for name in table.index.drop("matrix product")
    ]
    return "\n".join(rows) + "\n"


def _gpu(tables: dict[str, pd.DataFrame]) -> str:
    """What keeps a GPU busy, and what a shorter type of product would change."""
    if "gpu" not in tables:
        return ""
    table = tables["gpu"].set_index("implementation")
    machine = table["machine"].iloc[0]
    rows = [
        "## On a GPU\n",
        f"| on one {machine} | takes | of it a kernel runs | launched one by one |",
        "|---" * 4 + "|",
    ]
    for name, row in table.drop("TF32").iterrows():
        busy = "–" if pd.isna(row["busy"]) else f"{row['busy']:.0%}"
        alone = "–" if pd.isna(row["one_by_one"]) else f"{1e3 * row['one_by_one']:.3g} ms"
        rows.append(f"| {name} | {1e3 * row['seconds']:.3g} ms | {busy} | {alone} |")
    moves = table.loc["TF32"]
    return "\n".join([*rows, "", GPU.format(moves["moves"], moves["moves_most"])])


def _memory(tables: dict[str, pd.DataFrame]) -> str:
    rows = []
    for task, table in tables.items():
        for row in table.dropna(subset="bytes").itertuples() if "bytes" in table else ():
            line = f"- {task}, size {row.size:,}: {row.bytes / 1e9:.2f} GB"
            if "smaller_size" in table:
                line += f", {row.bytes_at_smaller / 1e9:.2f} GB at size {row.smaller_size:,.0f}"
            rows.append(line)
    return "\n".join(["## Peak memory of a process\n", *rows, ""]) if rows else ""


def _profiles(tables: dict[str, pd.DataFrame]) -> str:
    """The operations that take most of a task's time."""
    if "profile" not in tables:
        return ""
    rows = [
        "## Where the time goes\n",
        "| task | size | share of the time, by operation of PyTorch |",
        "|---|---|---|",
    ]
    for (task, size), table in tables["profile"].groupby(["task", "size"], sort=False):
        parts = [f"`{row.operation}` {row.share:.0%}" for row in table.itertuples()]
        rows.append(f"| {task} | {size} | {', '.join(parts)} |")
    return "\n".join(rows) + "\n"


@mpl.rc_context(RC)
def _plot(table: pd.DataFrame, size: str) -> Figure:
    figure = Figure(figsize=(COLUMN_WIDTH + 1.3, 2.4), layout="constrained")
    axes = figure.subplots()
    seconds = fastest(table)
    peers = [name for name in seconds.columns if name != "vqdistill"]
    axes.plot(seconds["vqdistill"].dropna(), "o-", color="black", label="vqdistill")
    for peer, colour, marker in zip(peers, FREE_COLOURS, "s^Dv", strict=False):
        axes.plot(seconds[peer].dropna(), f"{marker}--", color=colour, label=peer)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel(size)
    axes.set_ylabel("time (s)")
    axes.set_xticks(seconds.index, [f"{n:,}" for n in seconds.index])
    axes.minorticks_off()
    figure.legend(loc="outside right center")
    return figure

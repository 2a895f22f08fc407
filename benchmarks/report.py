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


GOALS = [
    Goal("mixture", 4096, "broadcast", 40),
    Goal("mixture", 4096, "torch.distributions", 200),
    Goal("mixture", 4096, "scikit-learn", 3),
    Goal("mixture", 4096, "matrix product", 0.5),
    Goal("conditional", 4096, "broadcast", 30),
    Goal("exact", 32, "naive", 30),
    Goal("DMBS", 1024, "full passes", 8),
    Goal("DMRS", 1024, "full passes", 8),
    Goal("CM density", 4096, "broadcast", 5),
    Goal("CM step", 4096, "broadcast", 0),  # told without a goal
    Goal("EiNet", 4, "einsum and autograd", 4),
    Goal("EiNet", 10, "einsum and autograd", 4),
    Goal("EiNet", 20, "einsum and autograd", 4),
    Goal("EiNet", 4, "units first", 4),
    Goal("EiNet", 10, "units first", 4),
    Goal("EiNet", 20, "units first", 4),
    Goal("VQ-VAE 2x2", 256, "plain loop", 2),
    Goal("VQ-VAE 4x4", 256, "plain loop", 2),
    Goal("prior 2x2", 256, "plain loop", 2),
    Goal("prior 4x4", 256, "plain loop", 2),
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
        "2,000 images of 784 pixels, components with σ down to 1e-3, against the number of"
        " components. Peers: (x − μ)²/σ² by broadcasting in chunks,"
        " `torch.distributions.MixtureSameFamily`, scikit-learn's `GaussianMixture.score_samples`,"
        " and a float32 matrix product of the same size, which vqdistill can beat where it leaves"
        " out components that cannot matter. All agree with a direct evaluation in float64,"
        " vqdistill to 1e-6 bits per dimension. Images and components are like different digits of"
        " scikit-learn's.",
        "components N",
    ),
    "conditional": (
        "Conditional log-likelihood",
        "log p(x_u | x_o) of the same mixtures with one half hidden, from a pass for the joint and"
        " one for the marginal.",
        "components N",
    ),
    "exact": (
        "ExM",
        "1,000 images under the mixture over all K⁴ latents of a 2×2 grid, from the prior to the"
        " sum. The naive way evaluates the prior once a latent and class and broadcasts the"
        " density; it was timed on 512 latents.",
        "codebook size K",
    ),
    "DMBS": (
        "DMBS",
        "Beams of all classes with a prior of the paper's size (10 layers of 512 channels, K ="
        " 4096, grid 4×4). The peer runs the whole PixelCNN for each position; it was timed on"
        " one class.",
        "components N",
    ),
    "DMRS": (
        "DMRS",
        "Ancestral samples from the same prior. The peer was timed on 64 samples.",
        "components N",
    ),
    "CM density": (
        "Density of a continuous mixture",
        "log p(x) of 128 images and its gradient for all means and deviations, as in training:"
        " vqdistill takes the float32 product of [x², x] with the precision-weighted means, which"
        " is off by nats where σ is near 1e-3. Validation and evaluation are exact.",
        "integration points",
    ),
    "CM step": (
        "Training step of a continuous mixture",
        "The whole step with the paper's decoder, forward and backward. The peer broadcasts the"
        " density, which is most of the difference, and stores the decoder's activations."
        " vqdistill computes those of a chunk again for its gradient, so that its memory doesn't"
        " grow with the points.",
        "integration points",
    ),
    "EiNet": (
        "E-step of an EiNet",
        "128 images of 28×28 pixels, pieces of 4×4, expected counts of all parameters. The peers"
        " evaluate the same circuit in log-space with one einsum a layer and take the counts from"
        " autograd: the quicker one with units as the last dimension of its tensors, the other"
        " with units before partitions, as the EiNet authors' code has them.",
        "units K",
    ),
}


TRAINED = """Rows of VQ-VAEs and priors are one epoch over 1,797 digits of 28×28 pixels, in batches
of 128, with the networks of the laptop preset. A plain loop is the same network in NCHW order, with
torch.distributions or masked convolutions, fed by a DataLoader that transforms image by image; for
priors it encodes the codes of each batch anew.
"""

COUNTED = """Counted are the operations that are carried out. Winograd's convolutions have fewer
than plain ones, so that a step can be quicker and yet reach a smaller share.
"""

GPU = """Training steps are those of the paper's networks, batches of 128. Their kernels are
recorded once and launched together, and nothing waits for the device from batch to batch
(`tests/test_gpu.py`), but for a CM, whose points come from the host. An evaluation waits for the
numbers of pairs that matter; several jobs at a time fill the gaps. All products are
in float32 or float64: TF32 would move the bits per dimension of single reconstructed images by
{1:.2g}, though by {0:.2g} on average, for standard deviations of 10^-3 ask for more than its ten
bits.
"""

TRIED = """What was tried, by hand, outside this suite:

- *Mixture.* Components are left out after the pixels that tell most of them, so the float32
  products are a fraction of the whole one; what remains is spread over preparing parameters,
  gathering the pairs that matter, and comparing. Sizes of cells, chunks and blocks, the numbers of
  cells after which it is checked, and the share at which pairs are taken one by one are the fastest
  of those that were tried. Keeping the prepared parameters from call to call would help those who
  call again, for three times the mixture's memory. The system takes a tenth of the time to hand out
  memory, less with glibc told to keep it, as the steps of the workflow do. The same makes the peers
  vary: torch.distributions took between 11 and 66 s from run to run on an AMD EPYC, 13 and 43 s on
  the Intel Xeon, ratios of 130 and 390; the broadcast took between 4.6 and 6.3 s, for conditionals
  between 5.6 and 9.0 s. So the goals against these three are reached in some runs and missed in
  others.
- *Conditionals.* Joint and marginal are a pass each, so that either leaves components out early;
  one pass of both took a third longer. Six masks are asked together: one by one they took twice
  as long, and after half of the pixels an eighth of the components still matter to some mask.
  Pairs that matter to several masks, evaluated once, saved little: four fifths matter to one alone.
  Pairs as a sparse product of the observed cells, in float64, take a fourth of the time that their
  gathered differences took, where there are enough of them to pay for its preparation. To take 25
  nats for negligible in place of 30 gains 1 % then.
- *EiNet, K = 10.* Batched products are less than half of a step; exponentials, sums and gathers
  between them take the rest. Other block sizes were no faster, nor were several batches at once at
  small K. Products that are kept for the way down save 4 to 6 % of a step at K = 2 and 8, but
  would take a gigabyte at K = 30. On the AMD EPYC the ratio to the quicker peer was 3.5. With glibc
  told to keep its memory, as the steps of the workflow do, peers gain more than vqdistill, which
  asks for less: the ratio at K = 20 was 3.3, and that of the CM's density 130. With dimensions in
  the order of the EiNet authors' code (`units first`) the peer takes about twice as long at K = 10
  and 20.
- *VQ-VAE.* On an AMD EPYC, with earlier code, the ratios were 2.3 (2×2) and 2.0 (4×4): there the
  plain loop took half as long again as on the Intel Xeon, vqdistill a tenth longer on 2×2 and a
  fourth longer on 4×4.
  The 3×3 convolutions of the residual blocks are Winograd's. oneDNN's transposed convolutions of
  stride 2 take up to five times as long as its convolutions of the same size, also where they are
  the gradient of one: 4.1 of the 22.5 ms of a step on 2×2, 5.2 of 39 ms on 4×4. With few channels
  they are now plain convolutions to blocks of pixels, and their own gradients are the library's;
  from 32 channels on, or 16 with an odd number of taps, that is slower. Products that are added up
  where their pixels overlap are quicker for the smallest maps only. Other instruction sets for
  oneDNN were no faster. Products of unfolded images in place of convolutions were slower; weights
  kept in channels-last order gained nothing. Rows of four take six products;
  a search by least squares found five only with coefficients that grow without bound. Two
  threads that take the gradient of a batch norm of 8 channels write to the same lines of the
  cache, 1.7 ms in place of 0.2 ms by one thread: so one thread takes it, in two layers on 2×2,
  which is a sixth of a step. With one thread, as the presets train, maps in NCHW order were slower,
  and so was a batch norm of our own. A tenth of a step on 2×2 and a sixteenth on 4×4 went with
  small things that a profile spreads over many lines: the likelihood with a gradient of its own
  (0.6 ms in place of 1.7; half of the library's is the mask of `clamp`), pixels of blocks moved as
  rows or as pairs, the convolution of two taps a side as one product of tiles (half of the
  library's time), the nearest codes by `min` in place of `argmin` (half), and 3×3 weights that lie
  in memory as the products read them. The same for three taps a side, as products of gathered
  patches, is as quick as the library's at 16 channels and slower from 32 to 128.
  `torch.compile` took 4 % off a step on 2×2 and 7 % on 4×4, for half a minute of compiling. With
  the batch as the last dimension, strided convolutions are products of rows as they lie in memory:
  two fifths of the library's time from 8 channels to the two of an image, a fifth less between 8
  and 16 channels, but two fifths more between 16 and 32.
- *Prior, 4×4.* With the layers of vqdistill in the plain loop, in place of masked convolutions, the
  ratio was 1.9, on the EPYC 2.1: as much as is saved by images and codes that are prepared once.
  Products of matrices are a third of an epoch; the rest is spread over sums, copies, gates and the
  softmax. Gradients of a gate in one tensor took 5 % off, a cross-entropy that keeps the softmax
  3 % more. `torch.compile` made a step a fifth longer.
- *CM.* Three quarters of a step of the laptop preset are convolutions, batch norms and activations
  of maps with 8 to 32 channels. Gradients of the density in fewer passes, a log-sum-exp that keeps
  the softmax, and activations in place took 9 % off, transposed convolutions by blocks of pixels
  3 % more, and 5 % their pixels moved as pairs, deviations bounded without a mask, and the first
  layer, of a single position, as a matrix product. Of the last layer, the library's gradients took
  longer than those of the blocks.
- *GPU.* Residual blocks by cuDNN's convolutions, which are slow without TF32: 13.1 ms in place of
  6.2 ms for a step of the 4×4 VQ-VAE, 3.0 in place of 2.1 on 2×2. Maps in NCHW order: 3 % faster
  for VQ-VAEs, a quarter slower for a CM. cuDNN's search for the fastest algorithm changed nothing.
  Six jobs at a time took turns: each step took six times as long. The sum over 65,536 components of
  a trained model, 10,000 images, took 0.15 s with components left out and 0.08 s by float64
  products of all, at which other kinds of GPUs are dozens of times slower.
- *Quick preset.* Its steps compute for two seconds or so, and starting them takes more than one,
  nearly all of it PyTorch's import. What that has made is left to the system at a step's end, which
  would take 0.17 s to take apart. Not looking for garbage meanwhile took 0.4 s off each; a step
  that makes no table doesn't import pandas either. A server that forks steps from a process in
  which PyTorch is imported would save most of the rest, but it would stand between Snakemake and
  every signal, limit and measurement of a job. Fewer, longer steps would save more too, but then
  less could be kept when a setting changes.
- *Laptop preset.* With the settings of its first reference, one seed by each code, at the same time
  and each on a core of its own, scaled to five seeds: 94.3 core-minutes by `74037ad`, the code of
  that reference, 46.9 and, right after, 47.8 by `fe4570a`: 50 %. All five seeds, alone on both
  cores: 54.8 core-minutes, in 28 minutes in which epochs took an eighth longer than an hour before.
  (That reference itself took 133 core-minutes, on an AMD EPYC with other work.) Of the 47, VQ-VAEs
  take 15 (they took 22), baselines 13 (24), evaluations of teachers 10 (33) and priors 6 (10):
  small networks, in whose profiles no operation takes more than a fourth. Starting Python and
  importing PyTorch takes 1.2 s of each of 130 jobs. The evaluation of a teacher with an exact
  model of 65,536 components took 267 s and takes 65. A third of that are float32 products under six
  masks, at the processor's peak. Bounds on the most that groups of 4 or 16 neighbouring components
  can be, by one quadratic form each, leave out too little to pay: of the groups of four, 6 to 24 %
  remain, and one in thousands matters. Frozen VQ-VAEs would decode them in half of 5 s by blocks of
  pixels, but round otherwise: where a mean of thousands of bits rests on one component, it would
  move by 5·10⁻⁴.
"""


def write(results: Path, docs: Path) -> None:
    """Write the page and its plots from all tables in `results`."""
    tables = {path.stem: pd.read_csv(path) for path in sorted(results.glob("*.csv"))}
    parts = [
        "# How fast it is\n",
        "Written by `uv run pytest benchmarks` from `results/benchmarks/*.csv`. All times of a"
        " task are from one run on one machine, with the same number of threads for all, the least"
        " of several rounds after one that warms up, or of a single round where one takes long"
        " (`rounds`), and for peers the fastest of several chunk sizes. Slow peers were timed on a"
        " part of the work and scaled (`share`). The goal is how many times faster vqdistill"
        " should be.\n",
        _machines(tables),
        _goals(tables),
        TRAINED,
        _commands(tables),
        _fractions(tables),
        _gpu(tables),
        _memory(tables),
        _profiles(tables),
        TRIED,
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
    return "Where they were last run: " + "; ".join(parts) + ".\n"


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


def _commands(tables: dict[str, pd.DataFrame]) -> str:
    if "commands" not in tables:
        return ""
    rows = ["| command | takes | goal |", "|---|---|---|"]
    for row in tables["commands"].itertuples():
        if row.implementation in LIMITS:
            limit = LIMITS[row.implementation]
            verdict = "reached" if row.seconds <= limit else "**missed**"
            rows.append(f"| {row.implementation} | {row.seconds:.3g} s | {limit:g} s: {verdict} |")
        else:
            ratio = row.seconds / row.computing
            verdict = "reached" if ratio <= OVERHEAD else "**missed**"
            rows.append(
                f"| {row.implementation}: {row.jobs:.0f} jobs | {row.seconds:.3g} s,"
                f" {ratio:.2f} times the {row.computing:.3g} s that they compute on each core;"
                f" starting Python and importing libraries takes {row.starting:.3g} s |"
                f" {OVERHEAD:g}: {verdict} |"
            )
    return "\n".join(rows) + "\n"


def _fractions(tables: dict[str, pd.DataFrame]) -> str:
    """Of the machine's peak that training steps of the paper's networks reach."""
    if "paper" not in tables:
        return ""
    table = tables["paper"].set_index("implementation")
    speed = table["operations"] / table["seconds"]
    rows = [
        "| training step of the paper's | takes | of a matrix product's speed |",
        "|---|---|---|",
    ]
    rows += [
        f"| {name} | {table['seconds'][name]:.3g} s | {speed[name] / speed['matrix product']:.0%} |"
        for name in table.index.drop("matrix product")
    ]
    return "\n".join([*rows, "", COUNTED])


def _gpu(tables: dict[str, pd.DataFrame]) -> str:
    """What keeps a GPU busy, and what a shorter type of product would change."""
    if "gpu" not in tables:
        return ""
    table = tables["gpu"].set_index("implementation")
    machine = table["machine"].iloc[0]
    rows = [
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
    return "\n".join(["Peak memory of a process:\n", *rows, ""]) if rows else ""


def _profiles(tables: dict[str, pd.DataFrame]) -> str:
    """The operations that take most of a task's time."""
    if "profile" not in tables:
        return ""
    rows = ["| task | size | where the time goes, by operation of PyTorch |", "|---|---|---|"]
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

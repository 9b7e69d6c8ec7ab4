"""The charts of all pages, as plotly figures; none of them holds a model's or a record's text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

COLOURS = {
    "echo": "#9aa5b1",
    "constant": "#b7791f",
    "nearest": "#6b7785",
    "base": "#c2780e",
    "sft": "#2b6cb0",
    "grpo": "#2f855a",
}
"""One colour a system, the same in every chart."""

OTHER_COLOUR = "#805ad5"
"""Models that are not the run's own."""

BASELINE_COLOURS = {"echo": COLOURS["echo"], "nearest": "#4a6fa5", "constant": "#b7791f", "random": "#5b9a8b"}
"""The same where no model is in the chart and grey need not stand back."""

SPLIT_COLOURS = {"train": "#4a6fa5", "validation": "#c2780e", "test": "#2f855a"}
"""One colour a split."""

Entry = Mapping[str, object]


def difference_chart(
    differences: Sequence[Entry], labels: Mapping[str, str], pairs: Sequence[tuple[str, str]], names: Mapping[str, str]
) -> go.Figure:
    """Paired differences with their intervals, one row a metric, one colour a pair of models.

    Args:
        differences: entries of the comparison.
        labels: metric → label, for the metrics to show.
        pairs: (system, other), in the order of the legend.
        names: system → name in the legend.
    """
    figure = _figure(height=110 + 64 * len(labels))
    for place, (one, other) in enumerate(pairs):
        entries = {entry["metric"]: entry for entry in differences if (entry["system"], entry["other"]) == (one, other)}
        shown = [entries[metric] for metric in labels]
        figure.add_trace(
            go.Scatter(
                x=[entry["mean"] for entry in shown],
                y=[row + (place - (len(pairs) - 1) / 2) * 0.7 / len(pairs) for row in range(len(labels))],
                text=list(labels.values()),
                error_x=_intervals(shown),
                mode="markers",
                marker={
                    "size": 9,
                    "color": COLOURS.get(one, OTHER_COLOUR),
                    "symbol": "circle" if other == "base" else "diamond",
                },
                name=f"{names[one]} − {names[other]}",
                hovertemplate="%{text}: %{x:.3f}<extra>%{fullData.name}</extra>",
            )
        )
    figure.add_vline(x=0, line={"color": "#888", "width": 1})
    figure.update_xaxes(title="difference of means")
    figure.update_yaxes(autorange="reversed", tickvals=list(range(len(labels))), ticktext=list(labels.values()), showgrid=False)
    return figure


def task_chart(
    tasks: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, str],
    pairs: Sequence[tuple[str, str]],
    names: Mapping[str, str],
) -> go.Figure:
    """Paired differences by task and metric as colours, one pair of models at a time.

    Args:
        tasks: the comparison's slices by task.
        labels: metric → label, for the metrics to show.
        pairs: (system, other); the first is shown, the others can be chosen.
        names: system → name on its button.
    """
    figure = _figure(height=150 + 34 * len(tasks))
    rows = [f"{task} ({entry['records']})" for task, entry in tasks.items()]
    for place, (one, other) in enumerate(pairs):
        found = [
            {entry["metric"]: entry for entry in part["differences"] if (entry["system"], entry["other"]) == (one, other)}
            for part in tasks.values()
        ]
        cells = [[entries[metric] for metric in labels] for entries in found]
        largest = max((abs(cell["mean"]) for row in cells for cell in row if cell["mean"] is not None), default=0.0) or 1.0
        figure.add_trace(
            go.Heatmap(
                z=[[cell["mean"] for cell in row] for row in cells],
                y=rows,
                x=[label.replace(" (", "<br>(") for label in labels.values()],
                text=[[_cell(cell) for cell in row] for row in cells],
                customdata=[[[cell["low"], cell["high"], cell["records"]] for cell in row] for row in cells],
                texttemplate="%{text}",
                hovertemplate="%{y}, %{x}: %{z:+.3f} (%{customdata[0]:+.3f} to %{customdata[1]:+.3f}, "
                f"%{{customdata[2]}} records)<extra>{names[one]} − {names[other]}</extra>",
                colorscale=[[0, "rgba(197,48,48,0.75)"], [0.5, "rgba(128,128,128,0.06)"], [1, "rgba(47,133,90,0.75)"]],
                zmin=-largest,
                zmax=largest,
                showscale=False,
                visible=place == 0,
                xgap=2,
                ygap=2,
            )
        )
    _choose_one(figure, [f"{names[one]} − {names[other]}" for one, other in pairs])
    figure.update_xaxes(title=None, showgrid=False, tickangle=0)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    return figure


def run_chart(differences: Mapping[str, Mapping[str, Entry]], labels: Mapping[str, str], title: str) -> go.Figure:
    """Differences of several runs with their intervals, one row a run, one metric at a time.

    Args:
        differences: run → metric → entry with `mean`, `low` and `high`.
        labels: metric → label on its button; the first is shown.
        title: what the differences are.
    """
    figure = _figure(height=150 + 34 * len(differences))
    for place, metric in enumerate(labels):
        known = {name: entries[metric] for name, entries in differences.items() if entries[metric]["mean"] is not None}
        figure.add_trace(
            go.Scatter(
                x=[entry["mean"] for entry in known.values()],
                y=list(known),
                error_x=_intervals(known.values()),
                mode="markers",
                marker={"size": 9, "color": COLOURS["grpo"]},
                visible=place == 0,
                showlegend=False,
                hovertemplate="%{y}: %{x:+.3f}<extra></extra>",
            )
        )
    figure.add_vline(x=0, line={"color": "#888", "width": 1})
    _choose_one(figure, list(labels.values()))
    figure.update_xaxes(title=title)
    figure.update_yaxes(
        autorange="reversed", type="category", categoryorder="array", categoryarray=list(differences), showgrid=False
    )
    return figure


def _intervals(entries: Collection[Entry]) -> dict[str, object]:
    """Error bars from each entry's `low` to its `high`."""
    above = [entry["high"] - entry["mean"] for entry in entries]
    below = [entry["mean"] - entry["low"] for entry in entries]
    return {"type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 2, "width": 5}


def _choose_one(figure: go.Figure, labels: Sequence[str]) -> None:
    """Buttons above a chart, each of which shows one of its traces."""
    buttons = [
        {"label": label, "method": "update", "args": [{"visible": [place == number for place in range(len(labels))]}]}
        for number, label in enumerate(labels)
    ]
    look = {"type": "buttons", "direction": "right", "bgcolor": "rgba(128,128,128,0.15)", "bordercolor": "#888"}
    place = {"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 8}}
    figure.update_layout(margin={"t": 60}, updatemenus=[{"buttons": buttons, **look, **place}])


def _cell(entry: Entry) -> str:
    """A difference in a cell; a dot says that its interval excludes zero."""
    if entry["mean"] is None:
        return "–"
    return f"{entry['mean']:+z.2f}".replace("+0.00", "0").replace("-", "−") + (
        " •" if entry["low"] > 0 or entry["high"] < 0 else ""
    )


def score_by_length_chart(
    scores: Mapping[str, Sequence[tuple[float, float]]], label: str, names: Mapping[str, str]
) -> go.Figure:
    """Each answer's score against its length, and a line through the means of five lengths.

    A model whose score rises with length alone, or that scores by being short, shows here.

    Args:
        scores: of each model (words, score) of every answer.
        label: the score's name.
        names: model → name in the legend.
    """
    figure = _figure(height=340)
    for model, points in scores.items():
        colour = COLOURS.get(model, OTHER_COLOUR)
        shown = points[:: max(1, len(points) // 1000)]
        x, y = ([point[axis] for point in shown] for axis in (0, 1))
        hover = f"%{{x}} words: %{{y:.3f}}<extra>{names[model]}</extra>"
        marker = {"color": colour, "size": 5, "opacity": 0.35}
        figure.add_trace(
            go.Scatter(x=x, y=y, mode="markers", marker=marker, legendgroup=model, showlegend=False, hovertemplate=hover)
        )
        table = np.array(points, dtype=float).reshape(-1, 2)
        # Answers of one length stay in one fifth: where they are parted, scores would decide on which side each goes.
        fifth = np.searchsorted(np.quantile(table[:, 0], [0.2, 0.4, 0.6, 0.8]), table[:, 0]) if len(table) else np.array([])
        means = [table[fifth == number].mean(axis=0) for number in np.unique(fifth)]
        figure.add_trace(
            go.Scatter(
                x=[round(float(mean[0]), 2) for mean in means],
                y=[round(float(mean[1]), 4) for mean in means],
                mode="lines+markers",
                line={"color": colour, "width": 2},
                name=names[model],
                legendgroup=model,
                hovertemplate=hover,
            )
        )
    figure.update_xaxes(title="words of the answer", rangemode="tozero")
    figure.update_yaxes(title=label)
    return figure


def sft_chart(log: Sequence[Entry]) -> go.Figure:
    """Training and validation loss over SFT's steps."""
    figure = _figure()
    training = [entry for entry in log if "loss" in entry]
    validation = [entry for entry in log if "validation_loss" in entry]
    figure.add_trace(_line(training, "loss", "training loss", "#90a4b8", "lines"))
    figure.add_trace(_line(validation, "validation_loss", "validation loss", COLOURS["sft"], "lines+markers"))
    figure.update_yaxes(title="loss per token (nats)")
    return figure


def reward_chart(log: Sequence[Entry]) -> go.Figure:
    """GRPO's total reward and each of its components over the steps."""
    figure = _figure()
    steps = [entry for entry in log if "reward" in entry]
    figure.add_trace(_line(steps, "reward", "weighted sum", COLOURS["grpo"], "lines+markers"))
    components = sorted({name for entry in steps for name in entry if name.startswith("rewards/") and name.endswith("/mean")})
    for name, colour in zip(components, ("#805ad5", "#b7791f", "#c53030", "#2c7a7b", "#4a5568") * 3, strict=False):
        figure.add_trace(_line(steps, name, name.split("/")[1], colour, "lines"))
    figure.update_yaxes(title="mean reward")
    return figure


def length_chart(log: Sequence[Entry]) -> go.Figure:
    """Mean length of GRPO's completions, the first thing to fall when a reward is gamed."""
    figure = _figure()
    steps = [entry for entry in log if "completions/mean_length" in entry]
    figure.add_trace(_line(steps, "completions/mean_length", "mean length", COLOURS["grpo"], "lines+markers"))
    figure.update_yaxes(title="tokens", rangemode="tozero")
    return figure


def health_chart(log: Sequence[Entry]) -> go.Figure:
    """What shows early that GRPO goes wrong: entropy, divergence from the SFT model, samples that are not the policy's."""
    figure = _figure()
    steps = [entry for entry in log if "reward" in entry]
    for name, label, colour in (
        ("entropy", "entropy (nats per token)", COLOURS["grpo"]),
        ("kl", "KL from the SFT model (nats per token)", "#805ad5"),
        ("frac_reward_zero_std", "share of groups without spread", "#b7791f"),
        ("sampling/sampling_logp_difference/mean", "|log p(trainer) - log p(sampler)|", "#c53030"),
    ):
        if any(entry.get(name) is not None for entry in steps):
            figure.add_trace(_line(steps, name, label, colour, "lines"))
    return figure


def validation_chart(log: Sequence[Entry], metrics: Mapping[str, str]) -> go.Figure | None:
    """Greedy answers to validation prompts while GRPO trains: a metric that is no reward, and the reward; None without them.

    Args:
        log: GRPO's training log.
        metrics: labels of the quality metrics by name.
    """
    entries = [entry for entry in log if any(f"eval_{name}" in entry for name in metrics)]
    if not entries:
        return None
    (name,) = [name for name in metrics if f"eval_{name}" in entries[0]]
    figure = _figure()
    figure.add_trace(_line(entries, f"eval_{name}", f"{metrics[name]}, no reward", COLOURS["sft"], "lines+markers"))
    figure.add_trace(_line(entries, "eval_reward", "reward", COLOURS["grpo"], "lines+markers"))
    return figure


def share_chart(shares: Sequence[Entry]) -> go.Figure:
    """Share of each task's records in each split, one bar a task, with a line where a split should end.

    Args:
        shares: entries of `data_statistics.share_table`.
    """
    tasks = [entry["task"] for entry in shares]
    figure = _figure(height=90 + 34 * len(tasks))
    for split, colour in SPLIT_COLOURS.items():
        found = [entry["splits"][split] for entry in shares]
        figure.add_trace(
            go.Bar(
                x=[100 * (one["share"] or 0) for one in found],
                y=list(range(len(tasks))),
                customdata=[[task, one["records"]] for task, one in zip(tasks, found, strict=True)],
                orientation="h",
                name=split,
                marker={"color": colour, "line": {"width": 0}},
                hovertemplate="%{customdata[0]}: %{x:.1f} %, %{customdata[1]:,} records<extra>%{fullData.name}</extra>",
            )
        )
    end = 0.0
    for split in list(SPLIT_COLOURS)[:-1]:
        end += 100 * shares[0]["splits"][split]["asked"]
        figure.add_vline(x=end, line={"color": "#10151b", "width": 2, "dash": "dot"})
    figure.update_layout(barmode="stack", bargap=0.35, legend={"traceorder": "normal"})
    figure.update_xaxes(title=None, ticksuffix=" %", range=[0, 100])
    figure.update_yaxes(
        autorange="reversed",
        tickvals=list(range(len(tasks))),
        ticks="outside",
        ticktext=tasks,
        ticklen=5,
        tickcolor="rgba(0,0,0,0)",
        showgrid=False,
    )
    return figure


def answer_length_chart(entry: Entry) -> go.Figure:
    """How long a task's answers are: training as bars, validation and test together as a line.

    Args:
        entry: an entry of `data_statistics.answer_histograms`.
    """
    figure = _figure(height=190)
    width, counts = entry["width"], entry["counts"]
    train = counts["train"]
    held_out = [sum(pair) for pair in zip(counts["validation"], counts["test"], strict=True)]
    middles = [entry["start"] + width * (place + 0.5) for place in range(len(train))]
    names = [f"{entry['start'] + width * place} to {entry['start'] + width * (place + 1) - 1}" for place in range(len(train))]
    names[-1] = f"{entry['start'] + width * (len(train) - 1)} and more"
    hover = "%{customdata} tokens: %{y:.1f} %<extra>%{fullData.name}</extra>"
    bars = {"width": width * 0.92, "marker": {"color": SPLIT_COLOURS["train"], "opacity": 0.75, "line": {"width": 0}}}
    figure.add_trace(go.Bar(x=middles, y=_percentages(train), customdata=names, name="training", hovertemplate=hover, **bars))
    line = {"color": SPLIT_COLOURS["validation"], "width": 2, "shape": "hvh"}
    figure.add_trace(
        go.Scatter(
            x=middles, y=_percentages(held_out), customdata=names, name="held out", mode="lines", line=line, hovertemplate=hover
        )
    )
    figure.update_xaxes(title=None)
    figure.update_yaxes(ticksuffix=" %", rangemode="tozero")
    return figure


def baseline_chart(systems: Mapping[str, Entry], metrics: Mapping[str, str], names: Mapping[str, str]) -> go.Figure:
    """Overall scores of answers that need no model, one group of bars a metric.

    Args:
        systems: result of `data_statistics.score_baselines`.
        metrics: metric → label.
        names: system → name in the legend.
    """
    figure = _figure(height=340)
    for system, scores in systems.items():
        if scores["overall"] is None:
            continue
        figure.add_trace(
            go.Bar(
                x=list(range(len(metrics))),
                y=[scores["overall"][metric] for metric in metrics],
                customdata=list(metrics.values()),
                name=names[system],
                marker={"color": BASELINE_COLOURS[system], "line": {"width": 0}},
                hovertemplate="%{customdata}: %{y:.3f}<extra>%{fullData.name}</extra>",
            )
        )
    labels = [label.replace(" (", "<br>(") for label in metrics.values()]  # a phone is too narrow for them on one line
    figure.update_xaxes(title=None, tickvals=list(range(len(metrics))), ticktext=labels, tickangle=0, showgrid=False)
    figure.update_yaxes(rangemode="tozero")
    return figure


def _percentages(counts: Sequence[int]) -> list[float]:
    return [round(100 * count / max(1, sum(counts)), 2) for count in counts]


def _line(entries: Sequence[Entry], key: str, name: str, colour: str, mode: str) -> go.Scatter:
    return go.Scatter(
        x=[entry["step"] for entry in entries],
        y=[entry.get(key) for entry in entries],
        name=name,
        mode=mode,
        line={"color": colour, "width": 2},
        hovertemplate="step %{x}: %{y:.3f}<extra>%{fullData.name}</extra>",
    )


def _figure(height: int = 300) -> go.Figure:
    """An empty figure whose colours suit a light and a dark page."""
    grid = "rgba(128,128,128,0.22)"
    figure = go.Figure()
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 30, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, sans-serif", "size": 13, "color": "#7a8594"},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"namelength": -1},
    )
    figure.update_xaxes(gridcolor=grid, zeroline=False, automargin=True, title="step")
    figure.update_yaxes(gridcolor=grid, zeroline=False, automargin=True)
    return figure

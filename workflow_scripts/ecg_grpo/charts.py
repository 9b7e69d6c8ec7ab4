"""The report's charts, as plotly figures; none of them holds a model's text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

COLOURS = {"echo": "#9aa5b1", "nearest": "#6b7785", "base": "#c2780e", "sft": "#2b6cb0", "grpo": "#2f855a"}
"""One colour a system, the same in every chart."""

Entry = Mapping[str, object]


def plotly_script() -> str:
    """plotly's own script, to be put into the page once."""
    return get_plotlyjs()


def as_div(figure: go.Figure, name: str) -> str:
    """A figure as HTML that needs `plotly_script()` earlier in the page.

    Args:
        figure: the chart.
        name: id of its element, the same in every build of the page.
    """
    return figure.to_html(
        full_html=False, include_plotlyjs=False, div_id=name, config={"displayModeBar": False, "responsive": True}
    )


def difference_chart(differences: Sequence[Entry], labels: Mapping[str, str], pairs: Sequence[tuple[str, str]]) -> go.Figure:
    """Paired differences with their intervals, one row a metric, one colour a pair of models.

    Args:
        differences: entries of the comparison.
        labels: metric → label, for the metrics to show.
        pairs: (system, other), in the order of the legend.
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
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [entry["high"] - entry["mean"] for entry in shown],
                    "arrayminus": [entry["mean"] - entry["low"] for entry in shown],
                    "thickness": 2,
                    "width": 5,
                },
                mode="markers",
                marker={"size": 9, "color": COLOURS[one], "symbol": "circle" if other == "base" else "diamond"},
                name=f"{one} − {other}",
                hovertemplate="%{text}: %{x:.3f}<extra>%{fullData.name}</extra>",
            )
        )
    figure.add_vline(x=0, line={"color": "#888", "width": 1})
    figure.update_xaxes(title="difference of means")
    figure.update_yaxes(autorange="reversed", tickvals=list(range(len(labels))), ticktext=list(labels.values()), showgrid=False)
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

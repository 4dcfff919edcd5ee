"""Charts of what one record measured over its samples and over time; see `charts`."""

from __future__ import annotations

from edgebench.report.charts.vega import DASHES, Spec, calculated, chart, hover, names, number, view


def _by_trial() -> Spec:
    return {"color": names("name", "trial"), "strokeDash": names("name", "trial", scale={"range": DASHES})}


def ecdf() -> Spec:
    """Draw the share of samples that are no slower, by trial. Data set: trials."""
    return view(
        "Share of the samples that are no slower than a latency, one line for each trial (ECDF), up to 99.9 %.",
        260,
        data={"name": "trials"},
        transform=[
            {"flatten": ["ns", "share"]},
            {"filter": "datum.share <= 0.999"},
            *calculated(ms="datum.ns / 1e6", percent="100 * datum.share", name="'trial ' + datum.trial"),
        ],
        mark={"type": "line", "strokeWidth": 1.5},
        encoding={
            "x": number("ms", "latency, ms", scale={"type": "log", "nice": False}),
            "y": number("percent", "samples no slower, %"),
            **_by_trial(),
            "order": {"field": "share"},
            "tooltip": [
                *hover({"name": "trial"}),
                number("ms", "latency, ms", format=".4~r"),
                number("percent", "samples no slower, %", format=".2~f"),
            ],
        },
    )


def violin() -> Spec:
    """Draw how densely samples lie, by trial, with each median. Data set: trials."""
    x = {"axis": {"tickMinStep": 1, "format": "d", "grid": False}, "scale": {"zero": False, "nice": False, "padding": 8}}
    y = number("ms", "latency, ms", scale={"zero": False})
    bodies: Spec = {
        "transform": [
            {"flatten": ["at_ns", "density"]},
            *calculated(
                ms="datum.at_ns / 1e6", left="datum.trial - 0.42 * datum.density", right="datum.trial + 0.42 * datum.density"
            ),
        ],
        "mark": {"type": "area", "orient": "horizontal", "opacity": 0.6, "tooltip": None},
        "encoding": {
            "y": y,
            "x": number("left", "trial", **x),
            "x2": {"field": "right"},
            "detail": {"field": "trial"},
        },
    }
    medians: Spec = {
        "transform": [
            {"flatten": ["ns", "share"]},
            {"filter": "datum.share >= 0.5"},
            {"aggregate": [{"op": "min", "field": "ns", "as": "median"}], "groupby": ["trial"]},
            *calculated(ms="datum.median / 1e6", left="datum.trial - 0.3", right="datum.trial + 0.3"),
        ],
        "mark": {"type": "rule", "style": "median"},
        "encoding": {
            "y": y,
            "x": number("left", "trial", **x),
            "x2": {"field": "right"},
            "tooltip": [number("trial", "trial"), number("ms", "median, ms", format=".4~r")],
        },
    }
    described = "How densely samples lie between the fastest and the 99th percentile, trial by trial; a line is the median."
    return view(described, 260, data={"name": "trials"}, layer=[bodies, medians])


# ---------------------------------------------------------------- over time


def series(explained: bool = True) -> Spec:
    """Draw medians over time, with temperature and clock under them (`vconcat`). Data sets: series, conditions, onset.

    told: whether the device said anything of the latter.
    """
    t = number("t_s", "seconds", scale={"zero": True, "nice": False})
    lines: Spec = {
        "data": {"name": "series"},
        "transform": [
            {"flatten": ["t_s", "median_ns"]},
            *calculated(ms="datum.median_ns / 1e6", name="'trial ' + datum.trial"),
        ],
        "mark": {"type": "line", "point": {"size": 12}, "strokeWidth": 1.5},
        "encoding": {
            "x": t,
            "y": number("ms", "median latency, ms", scale={"zero": False}, axis={"minExtent": 36}),
            **_by_trial(),
            "tooltip": [*hover({"name": "trial"}), number("t_s", "seconds"), number("ms", "median, ms", format=".4~r")],
        },
    }
    onset: Spec = {"data": {"name": "onset"}, "encoding": {"x": t}}
    rule = {**onset, "mark": {"type": "rule", "style": "onset", "aria": False}}
    word = {
        **onset,
        "transform": calculated(text="format(100 * datum.slowdown, '+.1f') + ' % at the end'"),
        "mark": {"type": "text", "align": "left", "baseline": "bottom", "dx": -2, "dy": -3, "style": "note"},
    }
    word["encoding"] = {"x": t, "y": {"value": 0}, "text": {"field": "text"}}
    under: Spec = {
        "data": {"name": "conditions"},
        "transform": [{"flatten": ["t_s", "value"]}],
        "facet": {
            "row": {
                "field": "what",
                "sort": ["temperature, °C", "clock, MHz"],
                "title": None,
                "header": {"labelOrient": "top", "labelAnchor": "start"},
            }
        },
        "spacing": 10,
        "resolve": {"scale": {"y": "independent"}},
        "spec": {
            "width": "container",
            "height": 70,
            "mark": {"type": "line", "strokeWidth": 1.5},
            "encoding": {
                "x": t,
                "y": number("value", None, scale={"zero": False}, axis={"minExtent": 36, "tickCount": 3, "format": ".5~g"}),
                "tooltip": [*hover({"what": "what"}), number("t_s", "seconds"), number("value", "value")],
            },
        },
    }
    described = "Median latency over time, and under it the device's temperature and clock where it told them."
    top = {"width": "container", "height": 220, "layer": [lines, rule, word]}
    return chart(described, vconcat=[top, under] if explained else [top], resolve={"scale": {"x": "shared"}})


def power() -> Spec:
    """Draw power over time, with idle stretches and those of samples marked. Data sets: power, stretches."""
    t = number("t_s", "seconds", scale={"nice": False})
    stretch: Spec = {"data": {"name": "stretches"}, "transform": calculated(middle="(datum.begin_s + datum.end_s) / 2")}
    marked = [
        {
            **stretch,
            "transform": [{"filter": f"datum.what === '{what}'"}],
            "mark": {"type": "rect", "opacity": 0.2, "style": style},
            "encoding": {"x": {**t, "field": "begin_s"}, "x2": {"field": "end_s"}, "description": {"field": "label"}},
        }
        for what, style in (("idle", "quiet"), ("samples", "first"))
    ]
    words = {
        **stretch,
        "mark": {"type": "text", "baseline": "bottom", "dy": -4, "style": "note"},
        "encoding": {"x": {**t, "field": "middle"}, "y": {"value": 0}, "text": {"field": "label"}},
    }
    lines: Spec = {
        "data": {"name": "power"},
        "transform": [{"flatten": ["t_s", "watts"]}, *calculated(rail="datum.source + ' (' + datum.provenance + ')'")],
        "mark": {"type": "line", "strokeWidth": 1.2, "interpolate": "linear"},
        "encoding": {
            "x": t,
            "y": number("watts", "power, W"),
            "color": names("rail", "rail"),
            "strokeDash": names("rail", "rail", scale={"range": DASHES}),
            "tooltip": [*hover({"rail": "rail"}), number("t_s", "seconds"), number("watts", "watts")],
        },
    }
    described = (
        "Power over time; shaded stretches: the device idle, and each trial taking samples (2 s at each end do not count)."
    )
    return view(described, 240, layer=[*marked, lines, words])

"""Themes. The colour-blind one uses the palette of Okabe and Ito, 2008, https://jfly.uni-koeln.de/color/."""

from __future__ import annotations

from textual.theme import Theme

SUITE = Theme(
    name="suite",
    primary="#7aa2f7",
    secondary="#2ac3de",
    accent="#ff9e64",
    success="#9ece6a",
    warning="#e0af68",
    error="#f7768e",
    foreground="#c8d3f5",
    background="#16161e",
    surface="#1a1b26",
    panel="#24283b",
    dark=True,
    variables={"quiet": "#8089b3"},
)
PAPER = Theme(
    name="suite-light",
    primary="#1d4ed8",
    secondary="#0e7490",
    accent="#c2410c",
    success="#15803d",
    warning="#a16207",
    error="#b91c1c",
    foreground="#1f2937",
    background="#fafaf7",
    surface="#f3f2ec",
    panel="#e7e5dc",
    dark=False,
    variables={"quiet": "#6b7280"},
)
COLOUR_BLIND = Theme(
    name="colour-blind",
    primary="#56b4e9",
    secondary="#0072b2",
    accent="#f0e442",
    success="#009e73",
    warning="#e69f00",
    error="#d55e00",
    foreground="#e8e8e8",
    background="#101010",
    surface="#161616",
    panel="#262626",
    dark=True,
    variables={"quiet": "#a0a0a0"},
)
THEMES = (SUITE, PAPER, COLOUR_BLIND)
# colours of the charts' series; the same palette, readable on dark and light backgrounds
SERIES = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#f0e442", "#999999")

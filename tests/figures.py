"""What a figure shows, as text, so that a test can compare all of it with what was looked at once."""

import contextlib
import pathlib

import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

KEPT = pathlib.Path(__file__).parent / "data" / "figures"


@contextlib.contextmanager
def figures_of():
    """Collect the figures that are saved while the block runs, each with the options it is saved with."""
    found, save = [], Figure.savefig

    def kept(figure, *arguments, **options):
        save(figure, *arguments, **options)
        found.append((figure, options))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", kept)
        yield found


def check(name, figure, options):
    """Compare a figure with its description in `tests/data/figures`.

    Where a figure is to change, write what the failing test shows into that file, and look at the picture.
    """
    file = KEPT / f"{name}.txt"
    seen = described(figure, options)
    assert seen.splitlines() == (file.read_text(encoding="utf-8").splitlines() if file.is_file() else []), seen


def described(figure, options) -> str:
    """Return a line for each thing in a figure, with what can be seen of it."""
    figure.draw_without_rendering()
    size = " x ".join(f"{side:.4g}" for side in figure.get_size_inches())
    lines = [f"figure {size}, saved with {sorted(options.items(), key=str)}"]
    for axes in figure.axes:
        place = axes.get_subplotspec()
        lines.append(
            f"axes {() if place is None else tuple(map(int, place.get_geometry()))}{'' if axes.axison else ' off'}"
        )
        titles = [axes.get_title(loc=loc) for loc in ("left", "center")]
        lines.append(f"  titles {titles}, size {axes.title.get_fontsize()}, {axes._left_title.get_fontsize()}")
        lines += [_axis(axes.xaxis, axes.get_xlim()), _axis(axes.yaxis, axes.get_ylim())]
        lines.append(f"  spines {sorted(name for name, spine in axes.spines.items() if spine.get_visible())}")
        lines += [_line(line) for line in axes.lines]
        lines += [_collection(one) for one in axes.collections]
        lines += [f"  patch {_box(one.get_extents())} {_look(one)} fill {one.get_fill()}" for one in axes.patches]
        lines += [f"  image {[round(float(end), 2) for end in one.get_extent()]}" for one in axes.images]
        lines += [_text(text, axes) for text in axes.texts]
        if (legend := axes.get_legend()) is not None:
            sizes = {text.get_fontsize() for text in legend.get_texts()}
            names = [text.get_text() for text in legend.get_texts()]
            lines.append(f"  legend {names}, size {sorted(sizes)}, frame {legend.get_frame_on()}")
    return "".join(f"{line}\n" for line in lines)


def _axis(axis, limits) -> str:
    inside = sorted(limits)
    ticks = [one for one in axis.get_major_ticks() if inside[0] <= one.get_loc() <= inside[1]]
    texts = [one.label1.get_text() for one in ticks]
    minor = sum(bool(one.label1.get_text()) for one in axis.get_minor_ticks())
    grid = {(to_hex(one.gridline.get_color()), one.gridline.get_alpha()) for one in ticks if one.gridline.get_visible()}
    sizes = sorted({one.label1.get_fontsize() for one in ticks})
    return (
        f"  {axis.axis_name} {axis.get_label_text()!r} {axis.get_scale()} {[_short(end) for end in limits]} "
        f"ticks {texts} size {sizes} minor {minor} grid {sorted(grid, key=str)}"
    )


def _short(number) -> float:
    return float(f"{number:.4g}")


def _pairs(points) -> list:
    return [(_short(x), _short(y)) for x, y in points]


def _box(box) -> list:
    return [round(float(end)) for end in box.extents]


def _look(one) -> str:
    edge = to_hex(one.get_edgecolor(), keep_alpha=True)
    return f"edge {edge} width {_short(one.get_linewidth())} order {one.get_zorder()} label {one.get_label()!r}"


def _line(line) -> str:
    points = _pairs(line.get_xydata())
    shown = points if len(points) <= 8 else [*points[:3], "…", len(points)]
    return (
        f"  line {shown} {to_hex(line.get_color())} {line.get_linestyle()} {_short(line.get_linewidth())} "
        f"cap {line.get_solid_capstyle()} alpha {line.get_alpha()} marker {line.get_marker()} "
        f"{_short(line.get_markersize())} order {line.get_zorder()}"
    )


def _collection(one) -> str:
    colors = [to_hex(color) for color in [*one.get_facecolor()[:1], *one.get_edgecolor()[:1]]]
    areas = [_short(area) for area in getattr(one, "get_sizes", list)()]
    segments = [_pairs(part) for part in getattr(one, "get_segments", list)()]
    return f"  points {_pairs(one.get_offsets())} {segments} areas {areas} colors {colors} order {one.get_zorder()}"


def _text(text, axes) -> str:
    at = _pairs([getattr(text, "xyann", text.get_position())])
    where = _pairs([text.xy]) if hasattr(text, "xy") else ""
    return (
        f"  text {text.get_text()!r} at {at} of {where} {getattr(text, 'anncoords', '')} size {text.get_fontsize()} "
        f"{text.get_horizontalalignment()} {text.get_verticalalignment()} math {text.get_parse_math()}"
    )

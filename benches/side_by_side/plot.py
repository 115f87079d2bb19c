"""A line in a plot, as SVG: the axis to the right is logarithmic, the one upwards begins at zero."""

import math

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 50


def line(title, x_label, y_label, points):
    """`points`: [(x, y)], x above zero."""
    xs, ys = [x for x, _ in points], [y for _, y in points]
    low, high = math.log10(min(xs)), math.log10(max(xs))
    most = ceiling(max(ys))

    def right(x):
        share = (math.log10(x) - low) / (high - low or 1)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def up(y):
        return HEIGHT - BOTTOM - y / most * (HEIGHT - TOP - BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        text(WIDTH / 2, 22, title, "middle", 15),
        text(WIDTH / 2, HEIGHT - 10, x_label, "middle"),
        text(LEFT - 8, TOP - 12, y_label, "end"),
    ]
    for step in range(5):
        y = most * step / 4
        parts.append(
            f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(y):.1f}" y2="{up(y):.1f}" stroke="#ddd"/>'
        )
        parts.append(text(LEFT - 8, up(y) + 4, f"{y:g}", "end"))
    for x in xs:
        parts.append(text(right(x), HEIGHT - BOTTOM + 18, short(x), "middle"))
    path = " ".join(f"{right(x):.1f},{up(y):.1f}" for x, y in points)
    parts.append(f'<polyline points="{path}" fill="none" stroke="#1f77b4" stroke-width="2"/>')
    for x, y in points:
        parts.append(f'<circle cx="{right(x):.1f}" cy="{up(y):.1f}" r="3.5" fill="#1f77b4"/>')
        parts.append(text(right(x), up(y) - 9, f"{y:.1f}", "middle"))
    return "\n".join([*parts, "</svg>", ""])


def ceiling(value):
    """The next number above it that a quarter of is easily read."""
    unit = 10 ** math.floor(math.log10(value))
    return next(step * unit for step in (1.2, 2, 4, 8, 12) if step * unit > value * 1.1)


def short(number):
    for unit, letter in ((10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return f"{number:g}"


def text(x, y, words, anchor, size=12):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{words}</text>'

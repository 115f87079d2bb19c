"""Medians, and the tables of benches/RESULTS.md."""

import math
import statistics

BEGIN, END = "<!-- bench:{}:begin -->", "<!-- bench:{}:end -->"


def medians(runs):
    """{peer: [figures, ...]} to {peer: figures}, with the spread of the scenario's rounds."""
    result = {}
    for peer, rounds in runs.items():
        keys = [key for key, value in rounds[0].items() if isinstance(value, (int, float))]
        result[peer] = {key: statistics.median(run[key] for run in rounds) for key in keys}
        result[peer]["errors"] = max(run.get("errors", 0) for run in rounds)
    return result


def spread(rounds, key):
    """Half the range over the median, in percent."""
    values = [run[key] for run in rounds if key in run]
    middle = statistics.median(values) if values else 0
    return (max(values) - min(values)) / 2 / middle * 100 if middle else 0.0


def table(scenario, figures, runs, peers):
    """The Markdown table of one scenario."""
    spread_key = scenario.key if any(scenario.key in run for run in runs[next(iter(runs))]) else "p50"
    ratios = [label for label, _ in scenario.ratios]
    targets = ["must", "goal", ""] if scenario.targets else []
    head = ["", *(label for label, _ in scenario.columns), "± %", *ratios, *targets]
    rows = [head, ["---"] * len(head)]
    ours = figures.get(scenario.ours)
    for name, values in figures.items():
        peer = peers[name]
        row = [f"**{name}**" if name == scenario.ours else name]
        row += [number(values.get(key)) for _, key in scenario.columns]
        row.append(f"{spread(runs[name], spread_key):.1f}")
        for _, key in scenario.ratios:
            same = name == scenario.ours or not ours or not values.get(key)
            row.append("" if same else f"{ours[key] / values[key]:.2f}")
        if scenario.targets:
            row += judged(scenario, name, values, ours)
        if values["errors"]:
            row[0] += f" ({values['errors']:.0f} errors)"
        rows.append(row)
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    notes = [f"- {name}: {peers[name].version_text}, {peers[name].shows}" for name in figures]
    return "\n".join([*lines, "", *notes])


def judged(scenario, name, values, ours):
    """The target cells of a row, and whether it is met."""
    if name not in scenario.targets or not ours:
        return ["", "", ""]
    must, goal = scenario.targets[name]
    if scenario.ratios:
        key = scenario.ratios[0][1]
        value = ours[key] / values[key] if values.get(key) else math.nan
    else:
        value = ours[scenario.key]
    verdict = "goal" if value <= goal else "must" if value <= must else "**missed**"
    return [f"{must:g}", f"{goal:g}", verdict]


def number(value):
    if value is None or math.isnan(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.1f}"


def write(path, sections):
    """Replaces the text between each section's markers; the rest of the file is prose and stays.
    A section without markers is added at the end."""
    text = path.read_text() if path.exists() else "# Results of `make bench`\n"
    for name, title, body in sections:
        begin, end = BEGIN.format(name), END.format(name)
        block = f"{begin}\n{body}\n{end}"
        if begin in text and end in text:
            before, _, rest = text.partition(begin)
            text = before + block + rest.partition(end)[2]
        else:
            text = f"{text.rstrip()}\n\n## {title}\n\n{block}\n"
    path.write_text(text)

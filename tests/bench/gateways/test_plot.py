"""The figures as a picture."""

import json
from pathlib import Path
from xml.etree import ElementTree

from tests.bench.gateways.plot import main

SVG = "{http://www.w3.org/2000/svg}"
REPORT = {
    "comparisons": [
        {"name": "plain", "unit": "requests/s", "values": {"none": 2000, "Nightdesk": 800, "<Peer>": 40}},
        {"name": "half load: added p99", "unit": "ms", "values": {"Nightdesk": 2.25, "<Peer>": -1}},
        {"name": "something else", "unit": "MB", "values": {"Nightdesk": 1}},
    ]
}


def test_each_figure_is_a_bar_as_long_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "gateway.json").write_text(json.dumps(REPORT))

    main(str(tmp_path / "gateway.json"), str(tmp_path / "gateway.svg"))

    picture = ElementTree.parse(tmp_path / "gateway.svg")  # noqa: S314 (we have just written it)
    bars = [bar for bar in picture.iter(f"{SVG}rect") if "bar" in bar.get("class", "")]
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    widths = [float(bar.get("width", 0)) for bar in bars]
    assert [round(width / widths[0], 2) for width in widths] == [1, 0.4, 0.02, 1, 0]
    assert [bar.get("class") for bar in bars] == ["bar", "bar ours", "bar", "bar ours", "bar"]
    assert texts[:3] == ["Requests a second (more is better)", "no gateway", "2,000"]
    assert "<Peer>" in texts
    assert texts[-1] == "-1.0"

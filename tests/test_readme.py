"""The ten lines of the README, as a newcomer runs them: twice."""

import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[1] / "README.md"


def test_the_ten_lines_run_twice_and_the_second_run_knows_the_first(tmp_path):
    """The first run buys; the second knows the position and does not buy again."""
    (tmp_path / "ten.py").write_text(
        re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[1]
    )
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", "ten.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        outputs.append(done.stdout)
    first, second = outputs
    assert "FILLED buy BTC/USDT 0.00476 @ 42000" in first
    assert "POSITION_EXISTS: symbol=BTC/USDT, position=0.00476" in second
    for output in outputs:
        assert re.search(r"position_id='BTC/USDT#1'.*quantity=Decimal\('0.00476'\)", output)

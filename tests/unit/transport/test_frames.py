from __future__ import annotations

from hyperframe.frame import DataFrame

from cloudless.transport import frames


def test_nobody_makes_a_text_of_all_the_data_that_arrives() -> None:
    """h2 calls ``repr`` on every frame that it gets."""
    assert frames.DataFrame is DataFrame
    assert repr(DataFrame(1, b"x" * 1_000_000)) == "DataFrame(stream_id=1, flags=[]): 1000000 bytes"

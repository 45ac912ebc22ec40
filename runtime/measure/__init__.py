"""How good a bundle's answers are on data, and how much worse than another bundle's.

rows (jsonl, a dataset folder, Python) -> Probe -> answers of a Session -> metrics per task -> drops with intervals
"""

from eptx.runtime.measure.answers import Answers, Probe
from eptx.runtime.measure.drop import Drop, divergence, drops
from eptx.runtime.measure.metrics import METRICS, choose_metrics
from eptx.runtime.measure.rows import Row, Source, read_data

__all__ = ["METRICS", "Answers", "Drop", "Probe", "Row", "Source", "choose_metrics", "divergence", "drops", "read_data"]

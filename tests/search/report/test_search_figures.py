import matplotlib
import pandas as pd
from optuna.distributions import CategoricalDistribution, FloatDistribution

from search.pictures.blocks import STYLE
from search.report.search_figures import COLORS, pairs, parallel, slices


def test_a_dollar_in_a_name_is_a_character():
    """matplotlib takes the text between two of them for a formula, and fails on this one."""
    rate, kind = "$_$", r"$\frac$"
    distributions = {rate: FloatDistribution(1e-5, 1e-2, log=True), kind: CategoricalDistribution(("$_$ a", "b"))}
    values = {
        rate: [1e-5, 1e-4, 3e-3],
        kind: ["$_$ a", "b", "b"],
        "score": [0.1, 0.2, 0.3],
        "origin": next(iter(COLORS)),
    }
    frame, names = pd.DataFrame(values), [rate, kind]
    with matplotlib.rc_context(STYLE):
        figures = [*slices(frame, distributions, names, "$_$"), parallel(frame, distributions, names, "$_$")]
        figures += pairs(frame, distributions, {(rate, kind): 0.5}, "$_$")
    assert [figure.title for figure in figures][:2] == names
    assert len(figures) == 4

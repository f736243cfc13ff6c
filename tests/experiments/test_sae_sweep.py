"""experiments.sae_sweep: which SAEs are trained, which stand beside the paper's, and the reduced lab."""

from experiments.harness.config import read_config
from experiments.sae_sweep import settings_of


def test_one_of_width_k_and_layer_is_changed_at_a_time():
    run = read_config(["experiment=table7"])
    assert list(settings_of(run)) == [
        "2048_k8", "1024_k8", "4096_k8", "2048_k4", "2048_k16", "2048_k8_layer1", "2048_k8_layer3",
    ]  # fmt: skip
    paper = settings_of(read_config(["experiment=figure8", "scale=paper"]))
    assert list(paper)[:5] == ["65536_k20", "16384_k20", "131072_k20", "65536_k10", "65536_k40"]
    some = settings_of(read_config(["experiment=sae_sweep", "experiment.swept=[ks]", "experiment.ks=[2]"]))
    assert list(some) == ["2048_k8", "2048_k2"]

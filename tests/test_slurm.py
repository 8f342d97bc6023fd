"""The cluster's profile, without a Slurm; tests/slurm/prove.py runs a study through a real one."""

import re
import subprocess

import pytest
import yaml

from modvar_lib import data

PROFILE = yaml.safe_load((data.ROOT / "profiles" / "slurm" / "config.yaml").read_text())


def ask(*words: str) -> tuple[int, str]:
    done = subprocess.run(words, cwd=data.ROOT, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_every_job_gets_its_resources(results, tmp_path):
    """All options are known to Snakemake and its executor; every rule named exists; training gets the defaults, and the cores."""
    words = ["--configfile", "config/paper.yaml", "--workflow-profile", "profiles/slurm"]
    status, said = ask("snakemake", "-n", *words, "--quiet", "host")
    assert status == 0, said
    found = {}
    for rule, block in re.findall(r"^rule (\w+):\n((?: {4}.*\n)+)", said, re.MULTILINE):
        numbers = re.findall(r"\b(threads|mem_mb|runtime|gpu)[:=] ?(\d+)", block)
        found[rule] = {name: int(number) for name, number in numbers}
    named, training = PROFILE["set-resources"], PROFILE["default-resources"]
    assert set(found) - {"all"} == set(named) | {name for name in found if "train_" in name}
    for rule, resources in found.items():
        wanted = named.get(rule, training if rule != "all" else {})
        assert wanted.items() <= resources.items(), rule
        if "train_" in rule:
            assert resources["threads"] == PROFILE["max-threads"]
    # the settings of profiles/default that a study needs on a cluster too
    default = yaml.safe_load((data.ROOT / "profiles" / "default" / "config.yaml").read_text())
    assert {k for k in default if PROFILE.get(k) != default[k]} == {"cores", "retries", "quiet"}


@pytest.mark.parametrize("target", ["reproduce", "paper", "smoke"])
def test_make_sends_jobs_to_slurm_only_if_told(target, results):
    make = ["make", "-n", "-o", ".venv/ready", target]
    status, said = ask(*make)
    assert status == 0 and "--workflow-profile profiles/default " in said and "--slurm" not in said
    status, said = ask(*make, "PROFILE=slurm")
    assert status == 0, said
    assert re.search(
        rf"--workflow-profile profiles/slurm --slurm-logdir {results}/\w+/slurm ", said
    )
    status, said = ask(*make, "PROFILE=slrum")
    assert status != 0 and "PROFILE: got 'slrum'; allowed: default slurm" in said

from __future__ import annotations

from pathlib import Path

import pytest

from workers.domain.errors import BadInput, Unfit
from workers.domain.host_class import Acceleration
from workers.host.acceleration import Probe, choose, cpu_model, probe
from workers.settings import HostSettings

HARDWARE = Probe(kvm_trouble=None, has_extension=True, is_pvm=False)
PVM = Probe(kvm_trouble=None, has_extension=False, is_pvm=True)
PVM_ON_HARDWARE = Probe(kvm_trouble=None, has_extension=True, is_pvm=True)
NOTHING = Probe(kvm_trouble="/dev/kvm does not open (No such file or directory)", has_extension=False, is_pvm=False)
LOCKED = Probe(kvm_trouble="/dev/kvm does not open (Permission denied)", has_extension=True, is_pvm=False)
EMULATED = Probe(kvm_trouble=None, has_extension=False, is_pvm=False)


@pytest.mark.parametrize(
    ("seen", "has_pvm_kernel", "best", "reason"),
    [
        (HARDWARE, False, Acceleration.KVM, "hardware virtualization works"),
        (HARDWARE, True, Acceleration.KVM, "hardware virtualization works"),
        (PVM, True, Acceleration.PVM, "PVM"),
        (PVM, False, Acceleration.TCG, "the guest's kernel is not made for PVM"),
        (PVM_ON_HARDWARE, False, Acceleration.TCG, "PVM's, not the hardware's"),
        (NOTHING, True, Acceleration.TCG, "does not open"),
        (LOCKED, False, Acceleration.TCG, "Permission denied"),
        (EMULATED, False, Acceleration.TCG, "no hardware virtualization"),
    ],
)
def test_the_best_that_works_is_chosen_with_its_reason(
    seen: Probe, best: Acceleration, reason: str, *, has_pvm_kernel: bool
) -> None:
    choice = choose(seen, None, has_pvm_kernel=has_pvm_kernel)

    assert choice.acceleration is best
    assert reason in choice.reason


@pytest.mark.parametrize(("seen", "wanted"), [(PVM, "kvm"), (PVM, "pvm"), (NOTHING, "kvm"), (HARDWARE, "pvm")])
def test_an_override_that_this_machine_cannot_do_is_refused(seen: Probe, wanted: str) -> None:
    with pytest.raises(Unfit, match=f"asks for {wanted}, but"):
        choose(seen, wanted, has_pvm_kernel=False)


@pytest.mark.parametrize("seen", [HARDWARE, PVM, NOTHING])
def test_software_emulation_can_always_be_asked_for(seen: Probe) -> None:
    assert choose(seen, "TCG", has_pvm_kernel=True).acceleration is Acceleration.TCG


def test_a_host_whose_image_asks_for_pvm_gets_it() -> None:
    """Whether a package's kernel is made for it is asked of each package, by the host's class."""
    for asked, wanted in (("pvm", Acceleration.PVM), ("PVM", Acceleration.PVM), (None, Acceleration.TCG)):
        settings = HostSettings(SPOT_RUNNER_ACCEL=asked)
        assert choose(PVM, settings.accel, has_pvm_kernel=settings.is_pvm).acceleration is wanted


def test_an_override_that_means_nothing_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match=r"SPOT_RUNNER_ACCEL is 'xen'; write kvm, pvm or tcg"):
        choose(HARDWARE, "xen", has_pvm_kernel=False)


def test_a_device_that_opens_but_is_no_kvm_is_of_no_use(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kvm").touch()

    assert "is no KVM" in str(probe(tmp_path).kvm_trouble)


def test_a_module_named_kvm_pvm_makes_a_pvm_host(tmp_path: Path) -> None:
    (tmp_path / "sys/module/kvm_pvm").mkdir(parents=True)

    assert probe(tmp_path).is_pvm


def test_a_pinned_processor_is_never_less_than_it_says() -> None:
    """Without `enforce` QEMU drops what the host lacks, and only warns."""
    for accel in (Acceleration.KVM, Acceleration.PVM):
        assert cpu_model(accel).split(",")[-1] == "enforce"

"""Many use a store, or one takes things out of it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from moorage.puller.errors import StoreInUse
from moorage.puller.lease import hold_alone, hold_shared


def test_many_share(tmp_path: Path) -> None:
    """In one process as in several: each holds files of its own."""
    with hold_shared(str(tmp_path)), hold_shared(str(tmp_path)):
        pass


def test_nobody_is_alone_beside_a_user(tmp_path: Path) -> None:
    """It is told after the time it would wait."""
    with (
        hold_shared(str(tmp_path)),
        pytest.raises(StoreInUse, match="nothing was removed"),
        hold_alone(str(tmp_path), wait=0.05),
    ):
        pytest.fail("alone beside a user")
    with hold_alone(str(tmp_path), wait=0):
        pass


def test_two_are_not_alone(tmp_path: Path) -> None:
    """Removers take turns."""
    with hold_alone(str(tmp_path), wait=0), pytest.raises(StoreInUse), hold_alone(str(tmp_path), wait=0):
        pytest.fail("two of them")


def test_users_wait_for_a_remover(tmp_path: Path) -> None:
    """They are never refused."""
    entered = threading.Event()

    def use() -> None:
        with hold_shared(str(tmp_path)):
            entered.set()

    with hold_alone(str(tmp_path), wait=0):
        user = threading.Thread(target=use)
        user.start()
        assert not entered.wait(0.1)
    assert entered.wait(60)
    user.join()


def test_an_unbroken_row_of_users_does_not_keep_a_remover_out(tmp_path: Path) -> None:
    """The gate holds newcomers back until those inside are done."""
    stop = threading.Event()

    def use() -> None:
        while not stop.is_set():
            with hold_shared(str(tmp_path)):
                time.sleep(0.02)

    users = [threading.Thread(target=use) for _ in range(8)]
    for user in users:
        user.start()
    try:
        with hold_alone(str(tmp_path), wait=60):
            pass
    finally:
        stop.set()
        for user in users:
            user.join()

"""Hours of random faults: does every disturbed run end equal, bit for bit, to an undisturbed one?

    python tests/benchmarks/faults.py OUT --minutes 120

One run is left alone. Then others, by the same recipe, meet seeded faults at random moments: SIGKILL of the run or of a worker,
SIGTERM, SIGINT, two signals, a full disk, a damaged newest checkpoint, damaged last lines of the log, stopped processes (slow
reads) and busy cores. After each end the run is resumed, until it has finished.
Status 1 where weights, log, detections or metrics of one differ from those of the first, or a run cannot be resumed. The full
disk needs the right to mount a tmpfs (Linux, root); without it that fault is left out.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from soak import same
from tables import Tables, parser_of

RECIPE = """
model: {{checkpoint: embedded:small}}
data: {{source: "generated:shapes?train=64&validation=16&edge=96", augment: light}}
train:
  output_dir: {run}
  num_train_epochs: 16
  per_device_train_batch_size: 4
  dataloader_num_workers: {workers}
  learning_rate: 1.0e-4
  ema_decay: 0.9
  eval_epochs: 2
  save_steps: 7
  save_total_limit: 3
  logging_steps: 3
"""
_LIMIT_SECONDS = 300  # of one start of the command, faults included
_MAX_STARTS = 40  # of one run
_DISK_BYTES = 2**29


@dataclass
class Disturbed:
    """A run that is disturbed: its folder, the random numbers of its faults, and what it has met."""

    folder: Path
    random: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def run(self) -> Path:
        """The run directory."""
        return self.folder / "run"

    def start(self) -> subprocess.Popen[bytes]:
        """Start or resume the run in a session of its own."""
        command = [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "detr_ft",
            "train",
            str(self.folder / "recipe.yaml"),
            "--resume",
        ]
        with (self.folder / "output.log").open("ab") as output:
            return subprocess.Popen(
                command, stdout=output, stderr=output, env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True
            )


def workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def kill(disturbed: Disturbed, process: subprocess.Popen[bytes]) -> None:
    process.kill()


def kill_all(disturbed: Disturbed, process: subprocess.Popen[bytes]) -> None:
    for worker in workers_of(process):
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    process.kill()


def kill_worker(disturbed: Disturbed, process: subprocess.Popen[bytes]) -> None:
    for worker in workers_of(process)[:1]:
        with suppress(psutil.NoSuchProcess):
            worker.kill()


def terminate(disturbed: Disturbed, process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)


def interrupt(disturbed: Disturbed, process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does


def two_signals(disturbed: Disturbed, process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    time.sleep(disturbed.random.uniform(0.0, 3.0))
    process.send_signal(disturbed.random.choice([signal.SIGTERM, signal.SIGINT]))


def stop_for_seconds(disturbed: Disturbed, process: subprocess.Popen[bytes]) -> None:
    """Slow reads: a worker, or the run itself, stands still."""
    stopped = [psutil.Process(process.pid), *workers_of(process)]
    one = disturbed.random.choice(stopped)
    with suppress(psutil.NoSuchProcess):
        one.suspend()
        time.sleep(disturbed.random.uniform(0.5, 4.0))
        one.resume()


def busy_cores(disturbed: Disturbed, process: subprocess.Popen[bytes]) -> None:
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    time.sleep(disturbed.random.uniform(1.0, 5.0))
    for other in others:
        other.kill()
        other.wait()


def fill_disk(disturbed: Disturbed, process: subprocess.Popen[bytes]) -> None:
    """No byte is left on the disk of the run for some seconds."""
    filler = disturbed.folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))
    time.sleep(disturbed.random.uniform(0.5, 6.0))
    filler.unlink()


LIVE: dict[str, Callable[[Disturbed, subprocess.Popen[bytes]], None]] = {
    "SIGKILL of the run": kill,
    "SIGKILL of run and workers": kill_all,
    "SIGKILL of a worker": kill_worker,
    "SIGTERM": terminate,
    "SIGINT": interrupt,
    "two signals": two_signals,
    "stopped process": stop_for_seconds,
    "busy cores": busy_cores,
    "full disk": fill_disk,
}


def damage(file: Path, random: random.Random) -> None:
    """Flip a byte, cut the file, empty it or remove it."""
    content = file.read_bytes()
    how = random.randrange(4)
    if how == 0 and content:
        place = random.randrange(len(content))
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
    elif how == 1:
        file.write_bytes(content[: len(content) // 2])
    elif how == 2:
        file.write_bytes(b"")
    else:
        file.unlink()


def damage_newest_checkpoint(disturbed: Disturbed) -> bool:
    """Damage a file of the newest checkpoint, if there is an earlier one."""
    steps = sorted(
        (disturbed.run / "checkpoints").glob("step-*"), key=lambda path: int(path.name.removeprefix("step-"))
    )
    if len(steps) < 2:
        return False
    damage(disturbed.random.choice(sorted(steps[-1].iterdir())), disturbed.random)
    return True


def damage_log(disturbed: Disturbed) -> bool:
    """Add half a row and bytes that are no text to the log, as after a power failure."""
    log = disturbed.run / "log.jsonl"
    if (disturbed.run / "metrics.json").exists():  # a finished run does not read it again
        return False
    if not log.is_file() or not any((disturbed.run / "checkpoints").glob("step-*")):
        return False
    with log.open("ab") as file:
        file.write(disturbed.random.choice([b'{"step": 10', b"\xff\xfe\x00\n", b"\x00" * 100, b"[]\nnull\n"]))
    return True


def leave_partial_files(disturbed: Disturbed) -> bool:
    """Leave what a killed writer leaves."""
    folder = disturbed.run / "checkpoints/.partial-step-99999"
    if not folder.parent.is_dir():
        return False
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"half")
    return True


STOPPED: dict[str, Callable[[Disturbed], bool]] = {
    "damaged checkpoint": damage_newest_checkpoint,
    "damaged log": damage_log,
    "partial files": leave_partial_files,
}


def disturb(disturbed: Disturbed, with_full_disk: bool) -> str:
    """Start and resume the run until it has finished; return what went wrong, empty if nothing did."""
    live = [name for name in LIVE if with_full_disk or name != "full disk"]
    for _ in range(_MAX_STARTS):
        process = disturbed.start()
        began = time.monotonic()
        while process.poll() is None and time.monotonic() - began < _LIMIT_SECONDS:
            with suppress(subprocess.TimeoutExpired):
                process.wait(disturbed.random.uniform(2.0, 15.0))
            if process.poll() is None:
                name = disturbed.random.choice(live)
                disturbed.faults[name] += 1
                LIVE[name](disturbed, process)
        if process.poll() is None:
            kill_all(disturbed, process)
            return f"no end after {_LIMIT_SECONDS} s"
        disturbed.statuses[process.returncode] += 1
        if left := alive_in_session(process.pid):
            return f"{len(left)} processes are left"
        if process.returncode == 0:
            return ""
        name = disturbed.random.choice([*STOPPED, ""])
        if name and STOPPED[name](disturbed):
            disturbed.faults[name] += 1
    return f"not finished after {_MAX_STARTS} starts"


def alive_in_session(leader: int) -> list[int]:
    """Processes of a run that are alive some seconds after its end."""
    for _ in range(20):
        left = [one.pid for one in psutil.process_iter() if _session(one.pid) == leader]
        if not left:
            return []
        time.sleep(0.5)
    return left


def _session(pid: int) -> int | None:
    with suppress(OSError):
        return os.getsid(pid) if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else None
    return None


def differences(first: Path, other: Path) -> list[str]:
    """Return what differs in weights, log, detections and metrics."""
    found = same(first, other)
    if (first / "predictions.json").read_bytes() != (other / "predictions.json").read_bytes():
        found.append("predictions.json differs")
    metrics = [json.loads((run / "metrics.json").read_text()) for run in (first, other)]
    found += [f"{name} differs" for name in ("map", "map_50", "mar_100") if metrics[0][name] != metrics[1][name]]
    best = [run / "checkpoints/best/model.safetensors" for run in (first, other)]
    if best[0].read_bytes() != best[1].read_bytes():
        found.append("checkpoints/best differs")
    return found


@contextmanager
def disk(folder: Path, tables: Tables):  # type: ignore[no-untyped-def]
    """A small disk of its own for the disturbed runs, if it can be mounted; yields whether."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(folder)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0
    if not mounted:
        tables.note("no tmpfs could be mounted: without a full disk")
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=False)


def prepare(folder: Path, workers: int, seed: int) -> Disturbed:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(run=folder / "run", workers=workers))
    return Disturbed(folder, random.Random(seed))


def main() -> int:
    parser = parser_of(__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    options.out.mkdir(parents=True)
    tables, ends_at = Tables(options.json), time.monotonic() + 60 * options.minutes
    alone = prepare(options.out / "alone", 1, 0)
    if alone.start().wait() != 0:
        raise SystemExit(f"the undisturbed run failed: {alone.folder / 'output.log'}")
    tables.begin({"run": "", "workers": "", "starts": "", "faults": "", "statuses": "", "result": ""})
    failed, seed, total = 0, options.seed, Counter[str]()
    with ExitStack() as stack:
        small = stack.enter_context(disk(options.out / "disk", tables))
        while time.monotonic() < ends_at:
            seed += 1
            workers = seed % 3
            disturbed = prepare(options.out / "disk" / "disturbed", workers, seed)
            problem = disturb(disturbed, small)
            try:
                found = [problem] if problem else differences(alone.run, disturbed.run)
            except (OSError, ValueError, LookupError) as error:
                found = [f"the run can't be compared: {error}"]
            total += disturbed.faults
            statuses = ", ".join(f"{status}: {count}" for status, count in sorted(disturbed.statuses.items()))
            result = "; ".join(found) or "equal, bit for bit"
            tables.row(
                seed, workers, sum(disturbed.statuses.values()), sum(disturbed.faults.values()), statuses, result
            )
            if found:
                failed += 1
                shutil.copytree(disturbed.folder, options.out / f"failed-{seed}", dirs_exist_ok=True)
    tables.note(", ".join(f"{name}: {count}" for name, count in total.most_common()))
    tables.note(f"{seed - options.seed} runs, {sum(total.values())} faults, {failed} runs not equal")
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())

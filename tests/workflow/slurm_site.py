"""A whole SLURM site on this machine: munged, slurmctld and one slurmd, started and stopped.

The daemons are those of Debian's packages `slurm-wlm` and `munge`. They read
`/etc/slurm/slurm.conf`, because the executor plugin of snakemake strips SLURM_CONF from what jobs
see; so a site can stand only where there is none, and only for root.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
# Held while a site stands: two of them would write over each other's settings.
LOCK = Path("/tmp/didgen-slurm.lock")
MARK = "# Written by DiDGen's tests; it goes when they end."
# More cores, memory and GPUs than there are: rules ask for what a real node has, and SLURM only
# counts. `gpu` is a resource of this kind too, without devices behind it.
SETTINGS = """\
{mark}
ClusterName=didgen
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=20
MinJobAge=3600
ReturnToService=2
MpiDefault=none
GresTypes=gpu
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} RealMemory=200000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes={host} MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why no site can be started here; None where one can."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"SLURM is not installed (no {missing[0]}): apt install slurm-wlm munge"
    if os.geteuid() != 0:
        return "only root can start SLURM's daemons"
    settings = Path("/etc/slurm/slurm.conf")
    with LOCK.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return f"another site of these tests stands on this machine ({LOCK})"
    if settings.exists() and MARK not in settings.read_text():
        return f"{settings} exists: this machine belongs to a SLURM site"
    return None


class Site:
    """The daemons of one node; a context manager that leaves nothing behind."""

    def __init__(self, folder: Path, cores: int = 8, gpus: int = 2) -> None:
        self.folder, self.cores, self.gpus = folder, cores, gpus
        self.host = socket.gethostname().split(".")[0]
        self._files = [Path("/etc/slurm/slurm.conf"), Path("/etc/slurm/gres.conf")]
        self._daemons: list[subprocess.Popen] = []
        self._munge = Path("/run/munge/munge.socket.2")

    def __enter__(self) -> "Site":
        self._lock = LOCK.open("a")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        ports = [_free_port(), _free_port()]
        self._files[0].parent.mkdir(exist_ok=True)
        self._files[0].write_text(
            SETTINGS.format(
                mark=MARK, host=self.host, folder=self.folder, cores=self.cores, gpus=self.gpus,
                controller_port=ports[0], node_port=ports[1],
            )
        )  # fmt: skip
        # Files stand in for devices; without them slurmd counts no GPU.
        devices = [self.folder / f"gpu{index}" for index in range(self.gpus)]
        for device in devices:
            device.touch()
        lines = [f"Name=gpu File={device}" for device in devices]
        self._files[1].write_text("\n".join([MARK, *lines]) + "\n")
        try:
            self._start_munge()
            self._start("slurmctld", "-D")
            self._start("slurmd", "-D")
            self.wait(lambda: "idle" in self.node_state(), 60, "the node is idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if len(self._daemons) > 1:
            self._end_jobs()
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for file in self._files:
            if file.exists() and MARK in file.read_text():
                file.unlink()
        self._lock.close()

    def ask(self, *command: str) -> str:
        """What one of SLURM's commands prints."""
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=60, env=os.environ | {"PATH": _path()}
        )
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def jobs(self, rule: str | None = None) -> dict[str, str]:
        """Jobs by id with their state, also those that ended; of one rule, if it is named."""
        lines = self.ask("squeue", "--states=all", "--noheader", "--format=%i|%T|%k").splitlines()
        rows = [line.split("|", 2) for line in lines]
        return {
            job: state
            for job, state, comment in rows
            if rule is None or f"{comment}_".startswith(f"rule_{rule}_")
        }

    def node_state(self) -> str:
        """For example `idle`, `mixed`, `draining`."""
        try:
            return self.ask("sinfo", "--noheader", "--partition=cpu", "--format=%T").strip()
        except RuntimeError:
            return "unreachable"

    def node(self, state: str) -> None:
        """Bring the node to a state: `drain` or `resume`."""
        reason = ["reason=test"] if state == "drain" else []
        self.ask("scontrol", "update", f"nodename={self.host}", f"state={state}", *reason)

    def wait(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Wait until the condition holds.

        Raises: TimeoutError, with what SLURM knows then.
        """
        ends = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > ends:
                logs = [self._tail(name) for name in ("slurmctld.log", "slurmd.log")]
                raise TimeoutError(f"not in {seconds:.0f} s: {what}\n" + "\n".join(logs))
            time.sleep(0.5)

    def _end_jobs(self) -> None:
        """End what is left of jobs; they would outlive the daemons."""
        try:
            self.ask("scancel", f"--user={os.getuid()}")
            active = ("squeue", "--noheader", "--states=running,completing,pending")
            self.wait(lambda: not self.ask(*active), 60, "all jobs have ended")
        except (RuntimeError, TimeoutError) as error:
            print(f"jobs may be left: {error}")

    def _start(self, name: str, *flags: str) -> None:
        # With an absolute path: the daemons reopen it after they have changed their folder.
        command = [shutil.which(name, path=_path()), *flags, "-f", str(self._files[0])]
        with (self.folder / f"{name}.out").open("w") as out:
            self._daemons.append(subprocess.Popen(command, stdout=out, stderr=out))

    def _start_munge(self) -> None:
        if (
            self._munge.exists()
            and subprocess.run(["munge", "-n"], capture_output=True).returncode == 0
        ):
            return
        self._munge.parent.mkdir(exist_ok=True)
        shutil.chown(self._munge.parent, "munge", "munge")
        command = [shutil.which("munged", path=_path()), "--foreground", "--force"]
        with (self.folder / "munged.out").open("w") as out:
            self._daemons.append(subprocess.Popen(command, stdout=out, stderr=out, user="munge"))
        self.wait(self._munge.exists, 20, "munged listens")

    def _tail(self, name: str) -> str:
        log = self.folder / name
        return f"{name}: {log.read_text()[-1500:]}" if log.exists() else f"no {name}"


@contextmanager
def launched(command: Sequence[str], directory: Path, output: Path) -> Iterator[subprocess.Popen]:
    """A command that runs beside the test, in a group of its own; ended if the test fails."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    with output.open("w") as out:
        run = subprocess.Popen(
            command,
            cwd=directory,
            env=environment | {"OMP_NUM_THREADS": "1", "PATH": _path()},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield run
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGINT)
                try:
                    run.wait(60)
                except subprocess.TimeoutExpired:
                    os.killpg(run.pid, signal.SIGKILL)
                    run.wait()


def _path() -> str:
    return os.environ.get("PATH", "") + os.pathsep + "/usr/sbin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]

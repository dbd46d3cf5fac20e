"""A Slurm of one node for tests, thrown away afterwards: munge, controller and node on loopback, without accounting.

Slurm finds its configuration in /etc/slurm, and Snakemake's executor lets no other be named. So every process, the study's
too, runs in a mount namespace of its own where that folder, and /etc/hosts, are the test's; the machine's stay as they are.
"""

import importlib.util
import os
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "scontrol", "unshare")
CPUS = 4  # on offer, whatever the machine has
_CONFIG = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
# Nothing here needs systemd or cgroups; memory is looked at every second, and jobs beyond theirs are killed.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/builtin
SchedulerParameters=sched_interval=1,sched_min_interval=0
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
MinJobAge=3600
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=16000
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def unavailable():
    """Why no Slurm can be started here, or None."""
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        return f"not installed: {', '.join(missing)}"
    if os.getuid() != 0:
        return "needs root"
    if not Path("/etc/slurm").is_dir():
        return "there is no folder /etc/slurm"
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        return "mount namespaces are not allowed here"
    if not importlib.util.find_spec("snakemake_executor_plugin_slurm"):
        return "snakemake-executor-plugin-slurm is not installed"
    return None


class Slurm:
    """A running Slurm; ``wrap`` puts a command into its world."""

    def __init__(self, folder):
        self.folder, self.host = folder, socket.gethostname().split(".")[0]
        (folder / "etc").mkdir()
        (folder / "state").mkdir()
        (folder / "spool").mkdir()
        text = _CONFIG.format(host=self.host, folder=folder, cpus=CPUS, controller_port=_free_port(), node_port=_free_port())
        (folder / "etc" / "slurm.conf").write_text(text)
        version = tuple(map(int, _output(["slurmd", "-V"]).split()[1].split(".")[:2]))
        # An old slurmd loads a cgroup plugin even if nothing uses it; version 1's needs no systemd.
        (folder / "etc" / "cgroup.conf").write_text(f"CgroupPlugin={'disabled' if version >= (23, 11) else 'cgroup/v1'}\n")
        (folder / "hosts").write_text(f"127.0.0.1 localhost {self.host}\n{Path('/etc/hosts').read_text()}")
        self._daemons = []

    def wrap(self, *command):
        """The command line that runs a command with this Slurm's configuration."""
        mounts = f"mount --bind {self.folder}/etc /etc/slurm && mount --bind {self.folder}/hosts /etc/hosts"
        return ["unshare", "--mount", "sh", "-c", f'{mounts} && exec "$@"', "sh", *map(str, command)]

    def call(self, *command):
        """Run a command of Slurm and return what it printed."""
        return _output(self.wrap(*command))

    def node(self, state):
        """Set the state of the node."""
        self.call("scontrol", "update", f"NodeName={self.host}", f"State={state}", "Reason=test")

    def jobs(self, states):
        """Comment (rule and wildcards), memory, state and id of the jobs in some states, or in any ("all"), the first first."""
        text = self.call("squeue", "--noheader", f"--states={states}", "--format=%k|%m|%T|%i", "--sort=i")
        return [line.split("|") for line in text.splitlines()]

    def start(self):
        """Start the daemons, and wait until a job could run."""
        key, socket_path = self.folder / "munge.key", self.folder / "munge.socket"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        self.folder.chmod(0o755)
        files = {"key-file": key, "socket": socket_path, "pid-file": self.folder / "munge.pid",
                 "seed-file": self.folder / "munge.seed", "log-file": self.folder / "munge.log"}  # fmt: skip
        self._start("munged", "--foreground", "--force", *(f"--{name}={path}" for name, path in files.items()))
        _wait(socket_path.exists, "munged", self.folder)
        self._start("slurmctld", "-D")
        _wait(lambda: "UP" in self.call("scontrol", "ping"), "slurmctld", self.folder)
        self._start("slurmd", "-D")
        _wait(lambda: "idle" in self.call("sinfo", "--noheader", "--format=%T"), "slurmd", self.folder)

    def stop(self):
        """Cancel all jobs, and stop the daemons, the last first."""
        with suppress(subprocess.SubprocessError, TimeoutError):
            self.call("scancel", f"--user={os.getuid()}")
            _wait(lambda: not self.call("squeue", "--noheader"), "the end of all jobs", self.folder)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(timeout=20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _start(self, *command):
        with (self.folder / f"{command[0]}.output").open("wb") as output:
            self._daemons.append(subprocess.Popen(self.wrap(*command), stdout=output, stderr=output))


@contextmanager
def running(folder):
    """A Slurm with its state in ``folder``."""
    slurm = Slurm(folder)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()


def _output(command):
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait(ready, what, folder, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        with suppress(subprocess.CalledProcessError):
            if ready():
                return
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text()[-2000:] for path in folder.glob("*.output"))
            raise TimeoutError(f"waited {seconds} s for {what}\n{logs}")
        time.sleep(0.2)

"""What a busy neighbour costs fine-tuning, sampling and judges, and what waiting quietly costs.

    python -m benchmarks.neighbour [--seconds 10] [--works finetuning sampling judge]

Each work runs as the workflow runs it: fine-tuning in one process with a thread for each core,
sampling in a process of one thread for each core, a judge (a segmenter's training step) in one
process of one thread. The neighbour is a process that counts. `passive` is how every command of
DiDGen waits for its threads (OMP_WAIT_POLICY), `active` is OpenMP's own way. Steps a second, wall
clock; read the ratios. Run it on a machine on which nothing else runs.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

WORKS = ("finetuning", "sampling", "judge")
POLICIES = ("active", "passive")


def work(name: str) -> Callable[[], object]:
    """One step of a work, ready to be repeated."""
    import torch

    if name == "finetuning":
        from benchmarks.finetuning_step import build_kit, ours

        kit = build_kit("tiny", 16, "adamw", checkpointing=False)
        return lambda: ours(kit)
    torch.set_num_threads(1)
    if name == "sampling":
        from didgen.backbone.handle import Backbone
        from didgen.backbone.placeholder import add_placeholder_tokens
        from didgen.methods.didgen.sampler import DidgenSynthesizer
        from didgen.methods.protocol import Request
        from didgen.settings.sampling import Sampling

        backbone = Backbone.load("tiny")
        add_placeholder_tokens(backbone.tokenizer, backbone.text_encoder)
        maker = DidgenSynthesizer(backbone, Sampling(steps=2, precision="float32", retries=0))
        wanted = [Request(str(n), "NV", "A melanocytic nevus.", n) for n in range(4)]
        return lambda: maker.synthesize(wanted)
    from didgen.downstream.segmenters import build_segmenter, segmentation_loss

    built = build_segmenter(
        "efficientnet_lite0", 128, (128, 64, 32, 16, 16), True, model="unet", weights=None
    )
    network = built.model.train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    images, masks = torch.rand(16, 3, 128, 128), torch.rand(16, 1, 128, 128).round()

    def step() -> None:
        optimizer.zero_grad()
        segmentation_loss(network(images), masks).backward()
        optimizer.step()

    return step


def child(name: str, seconds: float) -> None:
    """Print steps a second, after two that are not counted."""
    step = work(name)
    for _ in range(2):
        step()
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        step()
        count += 1
    print(count / (time.perf_counter() - started))


@contextlib.contextmanager
def neighbour() -> Iterator[None]:
    """A process that keeps one core busy."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def speed(name: str, policy: str, processes: int, seconds: float) -> float:
    """Steps a second of so many processes together."""
    command = [sys.executable, "-m", "benchmarks.neighbour", "--child", name]
    command += ["--seconds", str(seconds)]
    environment = {**os.environ, "OMP_WAIT_POLICY": policy}
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(processes)
    ]
    printed = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{name}: a process failed")
    return sum(float(text.split()[-1]) for text in printed)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--works", nargs="+", choices=WORKS, default=list(WORKS))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--child", choices=WORKS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.seconds)
        return
    cores = len(os.sched_getaffinity(0))
    print(f"{cores} cores; load before: {os.getloadavg()[0]:.2f}")
    print(f"{'work':<12}{'waits':<9}{'idle':>9}{'shared':>9}{'idle/shared':>13}")
    idle: dict[tuple[str, str], float] = {}
    for name in given.works:
        processes = cores if name == "sampling" else 1
        for policy in POLICIES:
            idle[name, policy] = speed(name, policy, processes, given.seconds)
            with neighbour():
                shared = speed(name, policy, processes, given.seconds)
            ratio = idle[name, policy] / shared
            print(
                f"{name:<12}{policy:<9}{idle[name, policy]:>9.3f}{shared:>9.3f}{ratio:>13.2f}",
                flush=True,
            )
        cost = idle[name, "active"] / idle[name, "passive"]
        print(f"{name}: passive costs {100 * (cost - 1):.1f} % when idle")
    if "judge" in given.works:
        together = speed("judge", "passive", 2, given.seconds)
        gain = together / idle["judge", "passive"]
        print(f"two judges side by side over one after the other: {gain:.2f} times as fast")


if __name__ == "__main__":
    main()

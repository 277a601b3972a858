"""Run a net that `export_c` wrote on an emulated Cortex-M4, to learn how much flash, RAM and arithmetic it needs.

Run `python -m tools.cortex_m XnorNN --arch convnet` for a recorded net. It needs Debian's packages gcc-arm-none-eabi
and qemu-system-arm. QEMU counts instructions, not clock cycles: a real Cortex-M4 takes between one and two cycles for
most of them.
"""

import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import torch

from qathelpers.data import load
from qathelpers.deploy.c import export_c
from qathelpers.results import recorded_net
from qathelpers.training import predict

COMPILER, SIZE, EMULATOR = "arm-none-eabi-gcc", "arm-none-eabi-size", "qemu-system-arm"
PACKAGES = {COMPILER: "gcc-arm-none-eabi", SIZE: "binutils-arm-none-eabi", EMULATOR: "qemu-system-arm"}
CPU = ("-mcpu=cortex-m4", "-mthumb", "-mfpu=fpv4-sp-d16", "-mfloat-abi=hard")
BUILD = ("-std=c99", "-O2", "-ffunction-sections", "-fdata-sections")
NANOSECONDS_PER_TICK = 40  # the board's clock has 25 MHz, and QEMU lets an instruction take 1 ns (-icount shift=0)
LIMIT = 300  # seconds

LINKER = """
MEMORY { flash (rx) : ORIGIN = 0, LENGTH = 4M   ram (rw) : ORIGIN = 0x20000000, LENGTH = 4M }
ENTRY(start)
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) *(.rodata*) . = ALIGN(4); data_from = .; } > flash
  .data : { data_start = .; *(.data*) . = ALIGN(4); data_end = .; } > ram AT > flash
  .bss (NOLOAD) : { bss_start = .; *(.bss*) *(COMMON) . = ALIGN(4); bss_end = .; } > ram
}
"""
# The reset handler, a clock, and semihosting, with which a program writes to the terminal of the emulator.
BOARD = """
#include <stdint.h>

int NAME_class(const uint8_t *image);
extern const uint8_t images[];
extern uint32_t data_from[], data_start[], data_end[], bss_start[], bss_end[];
static volatile uint32_t *const CLOCK = (volatile uint32_t *)0xE000E010; /* SysTick: control, reload, value */

static void call(int operation, const void *argument)
{
    register int r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

static void print(uint32_t number)
{
    char text[12] = {0};
    int i = 11;
    text[--i] = '\\n';
    do text[--i] = (char)('0' + number % 10); while (number /= 10);
    call(4, text + i);
}

void start(void)
{
    *(volatile uint32_t *)0xE000ED88 |= 0xF << 20; /* switch the floating-point unit on */
    __asm__ volatile("dsb\\n isb");
    for (uint32_t *from = data_from, *to = data_start; to < data_end;) *to++ = *from++;
    for (uint32_t *to = bss_start; to < bss_end;) *to++ = 0;
    CLOCK[1] = 0xFFFFFF;
    for (int i = 0; i < COUNT; i++) {
        CLOCK[2] = 0;
        CLOCK[0] = 5;
        int answer = NAME_class(images + i * BYTES);
        uint32_t ticks = 0xFFFFFF - CLOCK[2], wrapped = CLOCK[0] >> 16 & 1;
        print((uint32_t)answer);
        print(wrapped ? 0 : ticks);
    }
    call(0x18, (const void *)0x20026);
    for (;;) { }
}

__asm__(".section .vectors,\\"a\\"\\n .word 0x20400000\\n .word start\\n .text");
__asm__(".section .rodata\\n .global images\\n images: .incbin \\"images.bin\\"\\n .text");
"""


@dataclass(frozen=True)
class Measurement:
    """What a net needs on a Cortex-M4.

    Args:
        classes: The answers for the images.
        flash: Bytes of code and weights.
        ram: Bytes of static arrays.
        instructions: Instructions per image, the mean; None if an image takes more than the clock can count.
    """

    classes: list[int]
    flash: int
    ram: int
    instructions: int | None


def missing() -> list[str]:
    """List the Debian packages that are needed and not installed."""
    return [package for command, package in PACKAGES.items() if shutil.which(command) is None]


def run(path: Path, images: torch.Tensor, name: str = "net") -> Measurement:
    """Compile a file of `export_c` for a Cortex-M4 with a floating-point unit, and run it in the emulator.

    Args:
        path: The C file.
        images: Uint8 images (n, channels, h, w).
        name: The `name` that the file was written with.
    """
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "images.bin").write_bytes(images.contiguous().numpy().tobytes())
        board = BOARD.replace("NAME", name).replace("COUNT", str(len(images))).replace("BYTES", str(images[0].numel()))
        (folder / "board.c").write_text(board, encoding="utf-8")
        (folder / "board.ld").write_text(LINKER, encoding="utf-8")
        _call(folder, COMPILER, *CPU, *BUILD, "-c", str(path.resolve()), "-o", "net.o")
        linking = ("-nostartfiles", "-Wl,--gc-sections", "-T", "board.ld", "board.c", "net.o", "-o", "net.elf")
        _call(folder, COMPILER, *CPU, *BUILD, *linking)
        flash, data, bss = map(int, _call(folder, SIZE, "net.o").splitlines()[1].split()[:3])
        machine = ("-machine", "mps2-an386", "-nographic", "-monitor", "none", "-serial", "none")
        counting = ("-icount", "shift=0", "-semihosting-config", "enable=on,target=native")
        found = _call(folder, EMULATOR, *machine, *counting, "-kernel", "net.elf")
    numbers = list(map(int, found.split()))
    ticks = numbers[1::2]
    mean = None if 0 in ticks else round(sum(ticks) / len(ticks) * NANOSECONDS_PER_TICK)
    return Measurement(numbers[::2], flash + data, data + bss, mean)


def _call(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LIMIT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} fails: {done.stderr.strip()}")
    return done.stdout + (done.stderr if command[0] == EMULATOR else "")


@click.command()
@click.argument("name", default="XnorNN")
@click.option("--arch", default="convnet", show_default=True)
@click.option("--images", "count", type=int, default=10, show_default=True, help="How many test images to run.")
def main(name: str, arch: str, count: int) -> None:
    """Print what the recorded net NAME needs on a Cortex-M4, and how many predictions are the same as PyTorch's."""
    net, images = recorded_net(name, arch), load("cifar10").test_images[:count]
    with tempfile.TemporaryDirectory() as folder:
        found = run(export_c(net, Path(folder) / "net.c"), images)
    same = sum(a == b for a, b in zip(found.classes, predict(net, images).argmax(1).tolist(), strict=True))
    million = "-" if found.instructions is None else f"{found.instructions / 1e6:.1f}"
    print(f"{arch} {name}: flash {found.flash / 1000:.1f} kB, RAM {found.ram / 1000:.1f} kB, {million} million")
    print(f"instructions per image; {same} of {count} predictions are the same as PyTorch's")


if __name__ == "__main__":
    main()

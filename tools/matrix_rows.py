"""The rows of the matrix: which driver, how it is narrowed, and which missing features each row is allowed to have. A
case that is not supported for any other reason is an error."""
import dataclasses

LIMITS = r"limits for config \S+ \(invocations, shared memory\)"
NO_SUBGROUPS = r"subgroup operations"
NO_FP16 = r"fp16 arithmetic"
NO_INT_DOT = r"integer dot product"
NO_MATRICES = r"cooperative matrices"


def other_sizes(own):
    """Configs that want another subgroup size than the device's."""
    return rf"subgroup size (?!{own}$)\d+"


@dataclasses.dataclass(frozen=True)
class Row:
    name: str
    title: str
    driver: str                # lavapipe, swiftshader, radv
    says: str = ""             # the driver's own name; a row that ran on another one has not run
    subgroups: int = 0         # size that the plan must arrive at; 0: none
    vector_bits: int = 0       # LP_NATIVE_VECTOR_WIDTH; lavapipe's vectors are its subgroups
    profile: str = ""          # tests/profiles/<profile>.json
    quirks: str = ""           # forced, since a profile cannot change which driver it is
    family: str = ""           # RADV_FORCE_FAMILY
    root: str = ""             # option of tools/sysroot that makes the root with the driver; this machine's without one
    allowed: tuple = ()        # regular expressions of not-supported reasons, whole match; each must be of use
    least: int = 1             # cases of the whole list that it supports, at least
    validation: bool = True    # layers are there
    slow: int = 1              # how many times lavapipe's time a case takes; the short form takes fewer cases
    short: bool = True         # part of the short form


def lavapipe(size, **more):
    bits = size * 32
    return Row(f"lavapipe-{bits}", f"lavapipe 22.3, {bits}-bit vectors", "lavapipe", "llvmpipe", size, bits,
               allowed=(other_sizes(size), NO_MATRICES), least=4300, **more)


def profile(name, title, bits, least, allowed, quirks="", subgroups=0):
    return Row(name.replace("_", "-"), title, "lavapipe", "llvmpipe", subgroups, bits, profile=name, quirks=quirks,
               allowed=allowed, least=least)


ROWS = [
    lavapipe(4),
    lavapipe(8),
    lavapipe(16),
    # 1024 bits: the driver says 32 and executes 16, so that a quirk leaves the subgroup modules out.
    Row("lavapipe-1024", "lavapipe 22.3, 1024-bit vectors", "lavapipe", "llvmpipe", 0, 1024, allowed=(NO_SUBGROUPS,),
        least=4100),
    Row("swiftshader", "SwiftShader", "swiftshader", "SwiftShader driver", 4, allowed=(other_sizes(4), NO_FP16),
        least=3300, slow=8),
    Row("lavapipe-26.1", "lavapipe 26.1, in the full root of tools/sysroot", "lavapipe", "llvmpipe", 8, 256,
        allowed=(other_sizes(8),), least=4300, validation=False, short=False, root="--full"),
    profile("adreno_6xx", "Adreno 6xx", 256, 2400, (NO_SUBGROUPS, NO_FP16, NO_INT_DOT, LIMITS),
            "+adreno_subgroup_pipelines,+adreno_fp16_without_storage16"),
    profile("adreno_7xx", "Adreno 7xx", 256, 4100, (NO_SUBGROUPS,), "+adreno_subgroup_pipelines"),
    profile("mali_g52", "Mali G52", 256, 3800, (NO_SUBGROUPS, NO_INT_DOT)),
    profile("mali_g57", "Mali G57", 512, 4300, (other_sizes(16), NO_MATRICES), subgroups=16),
    profile("mali_g720", "Mali G720", 512, 4300, (other_sizes(16), NO_MATRICES), subgroups=16),
    profile("powervr", "PowerVR", 128, 3300, (NO_SUBGROUPS, NO_INT_DOT, LIMITS)),
    profile("amd_windows", "AMD on Windows, RDNA2", 512, 3300, (other_sizes(16), NO_FP16), "+amd_fp16_shuffle", 16),
    profile("intel_windows", "Intel on Windows", 256, 4300, (other_sizes(8), NO_MATRICES), subgroups=8),
    profile("android_baseline", "Android baseline 2022", 128, 2400, (NO_SUBGROUPS, NO_FP16, NO_INT_DOT, LIMITS)),
    profile("apple_moltenvk", "Apple through MoltenVK", 256, 4100, (NO_SUBGROUPS,)),
] + [Row(f"radv-{family}", f"RADV null device {family}", "radv", family=family, validation=False)
     for family in ("polaris10", "vega20", "navi10", "navi21")] + [
    # By a Mesa that knows RDNA 3: Debian 12's gives gfx1100, the same device, half of its registers.
    Row("radv-navi31", "RADV null device navi31, Mesa of Debian 13", "radv", family="navi31", validation=False, short=False,
        root="--amd"),
]

"""Runs programs of ggml and llama.cpp in the full root that tools/sysroot makes, with kvant's backend beside ggml's own: through the root's
own loader and libraries, without chroot and without privileges."""
import glob
import json
import os
import subprocess

SOURCE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Missing(Exception):
    """What is needed is not here; the text says what makes it."""


class GgmlRoot:
    def __init__(self, root, build, scratch):
        self.root = os.path.abspath(root)
        self.plugin = os.path.abspath(f"{build}/lib/libggml-kvant.so")
        self.scratch = os.path.abspath(scratch)
        loaders = glob.glob(f"{self.root}/usr/lib64/ld-linux-*.so.*") + glob.glob(f"{self.root}/usr/lib/*-linux-gnu/ld-linux-*.so.*")
        backends = glob.glob(f"{self.root}/usr/lib/*-linux-gnu/ggml/backends0")
        drivers = glob.glob(f"{self.root}/usr/lib/*-linux-gnu/libvulkan_lvp.so")
        if not (loaders and backends and drivers):
            raise Missing(f"{root} has no ggml and no Vulkan driver; tools/sysroot --full makes such a root")
        if not os.path.exists(self.plugin):
            raise Missing(f"{build}/lib/libggml-kvant.so is not built")
        self.loader, self.backends = loaders[0], backends[0]
        self.library_folder = os.path.dirname(os.path.dirname(self.backends))
        self.libraries = ":".join([self.library_folder] + glob.glob(f"{self.library_folder}/llama"))
        os.makedirs(self.scratch, exist_ok=True)
        self.manifest = f"{self.scratch}/lvp_icd.json"
        with open(self.manifest, "w", encoding="utf-8") as file:
            json.dump({"file_format_version": "1.0.0", "ICD": {"library_path": drivers[0], "api_version": "1.3.0"}}, file)

    def validation(self):
        """Variables that load this machine's validation layers into kvant's backend. The root has none of its own; this machine's older
        library runs on the root's newer ones."""
        manifests = glob.glob("/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json")
        libraries = glob.glob("/usr/lib/*-linux-gnu/libVkLayer_khronos_validation.so")
        if not (manifests and libraries):
            raise Missing("there are no validation layers on this machine; tools/setup installs them")
        with open(manifests[0], encoding="utf-8") as file:
            layer = json.load(file)
        layer["layer"]["library_path"] = libraries[0]
        folder = f"{self.scratch}/layers"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/validation.json", "w", encoding="utf-8") as file:
            json.dump(layer, file)
        # What the older layers do not know they would warn of.
        return {"VK_LAYER_PATH": folder, "KVANT_VALIDATION": "1", "KVANT_CAPABILITIES": '{"coopmat": false, "coopmat2": false}'}

    def program(self, name):
        found = [name] if os.path.isabs(name) else [f"{self.root}/usr/bin/{name}"] + glob.glob(f"{self.root}/usr/libexec/*/ggml/{name}")
        for path in found:
            if os.path.exists(path):
                return path
        raise Missing(f"{self.root} has no {name}; tools/sysroot --full makes such a root")

    def environment(self, plugin=True, **more):
        """ggml looks for its backends where it was built to, beside the executable (which is the loader here) and in the working
        folder: that is why every program runs in the folder of the backends."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("KVANT_", "VK_", "LP_", "GGML_", "LLAMA_"))}
        kept.update(VK_DRIVER_FILES=self.manifest, VK_ICD_FILENAMES=self.manifest, XDG_CACHE_HOME=f"{self.scratch}/cache")
        if plugin:
            kept["GGML_BACKEND_PATH"] = self.plugin
        kept.update(more)
        return kept

    def command(self, name, *arguments):
        return [self.loader, "--library-path", self.libraries, self.program(name), *[str(a) for a in arguments]]

    def run(self, name, *arguments, plugin=True, timeout=None, **more):
        """Exit status, what it printed, and its log."""
        done = subprocess.run(self.command(name, *arguments), cwd=self.backends, env=self.environment(plugin, **more),
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False)
        return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")

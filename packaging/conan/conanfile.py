"""Conan 2 recipe. `conan create packaging/conan` from the root of the sources."""
import os

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeToolchain, cmake_layout
from conan.tools.files import copy


class Quantal(ConanFile):
    name = "quantal"
    version = "0.1.0"
    description = "Block-quantization formats, quantizers and kernels"
    license = "MIT"
    settings = "os", "arch", "compiler", "build_type"
    options = {"runtime": [True, False]}
    default_options = {"runtime": True}

    def export_sources(self):
        root = os.path.join(self.recipe_folder, os.pardir, os.pardir)
        for pattern in ("CMakeLists.txt", "LICENSE", "cmake/*", "include/*"):
            copy(self, pattern, root, self.export_sources_folder)

    def requirements(self):
        self.requires("xsimd/[>=13.0.0 <15]", transitive_headers=True)

    def layout(self):
        cmake_layout(self)

    def validate(self):
        check_min_cppstd(self, 20)

    def package_id(self):
        if not self.info.options.runtime:
            self.info.clear()

    def generate(self):
        toolchain = CMakeToolchain(self)
        toolchain.cache_variables["QUANTAL_RUNTIME"] = bool(self.options.runtime)
        for option in ("TESTS", "BENCH", "EXAMPLES"):
            toolchain.cache_variables[f"QUANTAL_{option}"] = False
        xsimd = self.dependencies["xsimd"].cpp_info.includedir
        toolchain.cache_variables["QUANTAL_XSIMD_INCLUDE"] = xsimd.replace("\\", "/")
        toolchain.generate()

    def build(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.build()

    def package(self):
        CMake(self).install()

    def package_info(self):
        self.cpp_info.components["headers"].set_property("cmake_target_name", "quantal::quantal")
        self.cpp_info.components["headers"].set_property("pkg_config_name", "quantal")
        self.cpp_info.components["headers"].requires = ["xsimd::xsimd"]
        self.cpp_info.components["headers"].libdirs = []
        if self.settings.os == "Linux":
            self.cpp_info.components["headers"].system_libs = ["pthread"]
        if self.options.runtime:
            self.cpp_info.components["runtime"].libs = ["quantal_runtime"]
            self.cpp_info.components["runtime"].requires = ["headers"]
            self.cpp_info.components["runtime"].set_property("pkg_config_name", "quantal-runtime")

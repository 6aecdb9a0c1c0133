# Read by the build of llama-cpp-python (CMAKE_ARGS=-DCMAKE_PROJECT_llama_cpp_INCLUDE=<this file>):
# the bindings use nothing of llama-common, which is half of what would be compiled.
set(LLAMA_BUILD_COMMON OFF)

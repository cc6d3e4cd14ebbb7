// For programs that open a plugin library and no more, as Triton does with LD_PRELOAD and
// `plugins=`: when loaded, it registers the library of $TENSORMASK_PLUGIN with TensorRT.
//
// The plugin library itself registers nothing, so that one serves TensorRT 10, 11 and RTX; this
// one is linked to the TensorRT of the program. Compiled; not run in Triton yet.
#include <NvInferRuntime.h>

#include <cstdio>
#include <cstdlib>

__attribute__((constructor)) static void register_plugin() {
  const char* const path = std::getenv("TENSORMASK_PLUGIN");
  if (!path)
    std::fprintf(stderr, "TENSORMASK_PLUGIN: expected the plugin library, got nothing\n");
  else if (!getPluginRegistry()->loadLibrary(path))
    std::fprintf(stderr, "TENSORMASK_PLUGIN: %s does not load here\n", path);
}

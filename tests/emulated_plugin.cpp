// The TensorRT plugin as TensorRT uses it, without TensorRT: created from fields, stored,
// created again from what was stored, and run on the CPU with the kernels of
// emulated_launch.cpp.
#include <NvInferRuntime.h>

#include <cstring>
#include <memory>

using namespace nvinfer1;

extern "C" IPluginCreatorInterface* const* getCreators(int32_t& count);

static IPluginCreatorV3One* creator(const char* name) {
  int32_t count = 0;
  IPluginCreatorInterface* const* all = getCreators(count);
  for (int32_t i = 0; i < count; ++i)
    if (auto* found = static_cast<IPluginCreatorV3One*>(all[i]);
        !std::strcmp(found->getPluginName(), name))
      return found;
  return nullptr;
}

using Owned = std::unique_ptr<IPluginV3>;

template <class T>
static T* capability(const Owned& plugin, PluginCapabilityType type) {
  return static_cast<T*>(plugin->getCapabilityInterface(type));
}
static auto* build_of(const Owned& plugin) {
  return capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
}
static auto* runtime_of(const Owned& plugin) {
  return capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
}

// fields: name, type, length and up to 8 bytes each
struct Field {
  const char* name;
  int32_t type, length;
  char bytes[8];
};

static Owned created(const char* name, const Field* given, int32_t count) {
  PluginField fields[8];
  for (int32_t i = 0; i < count; ++i)
    fields[i] = {given[i].name, given[i].bytes, PluginFieldType(given[i].type),
                 given[i].length};
  const PluginFieldCollection collection{count, fields};
  return Owned(creator(name)->createPlugin("layer", &collection, TensorRTPhase::kBUILD));
}

extern "C" int plugin_exists(const char* name, const Field* fields, int32_t count) {
  return created(name, fields, count) != nullptr;
}

extern "C" const char* plugin_timing_id(const char* name, const Field* fields, int32_t count) {
  static Owned plugin;
  plugin = created(name, fields, count);
  return build_of(plugin)->getTimingCacheID();
}

// Bit p of the result: the tensor at p may have this type and format, the others being as
// given.
extern "C" int plugin_formats(const char* name, const Field* fields, int32_t count,
                              const int32_t* types, const int32_t* formats, int32_t tensors) {
  const Owned plugin = created(name, fields, count);
  DynamicPluginTensorDesc all[3]{};
  for (int32_t i = 0; i < tensors; ++i)
    all[i].desc.type = DataType(types[i]), all[i].desc.format = TensorFormat(formats[i]);
  int bits = 0;
  for (int32_t i = 0; i < tensors; ++i)
    bits |= build_of(plugin)->supportsFormatCombination(i, all, tensors - 1, 1) << i;
  return bits;
}

extern "C" int plugin_output_type(const char* name, const Field* fields, int32_t count,
                                  const int32_t* types, int32_t inputs) {
  const Owned plugin = created(name, fields, count);
  DataType in[4], out{};
  for (int32_t i = 0; i < inputs; ++i) in[i] = DataType(types[i]);
  return build_of(plugin)->getOutputDataTypes(&out, 1, in, inputs) == 0 ? int(out) : -1;
}

// type: of x; dims: of x; rows: K, windows only. Returns what enqueue returns.
extern "C" int plugin_run(const char* name, const Field* fields, int32_t count, int32_t type,
                          const int64_t* dims, int64_t rows, const void* x, const void* index,
                          void* out) {
  const Owned built = created(name, fields, count);
  const PluginFieldCollection* stored = runtime_of(built)->getFieldsToSerialize();
  const Owned loaded(creator(name)->createPlugin("layer", stored, TensorRTPhase::kRUNTIME));
  const Owned attached(runtime_of(loaded)->attachToContext(nullptr));
  PluginTensorDesc in[2]{}, result{};
  in[0].type = DataType(type);
  in[0].dims.nbDims = 5;
  for (int axis = 0; axis < 5; ++axis) in[0].dims.d[axis] = dims[axis];
  in[1].type = DataType::kINT64;
  in[1].dims = Dims{2, {rows, 3}};
  result.type = in[0].type;
  const void* inputs[2] = {x, index};
  return runtime_of(attached)->enqueue(in, &result, inputs, &out, nullptr, nullptr);
}

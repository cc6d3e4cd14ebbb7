// SwapAlign2Nat and SwapAlign2NatWindows for TensorRT: one library for TensorRT 10, 11 and
// TensorRT-RTX.
//
//   x:     (N, V, U, H, W)    float or half, linear       attributes: lam >= 1, pad_value
//   index: (K, 3) int64       the cells (n, y, x), windows only
//   out:   (N, lam*V, lam*U, ceil(H/lam), ceil(W/lam)) or (K, lam*V, lam*U), of x's type
//
// What lets one library serve three runtimes: it uses what their headers have in common, takes
// no symbol from them, and exports `getCreators` and `setLoggerFinder` alone. CUDA is called in
// `enqueue` only, so a machine without a GPU can load the library and build engines with it.
#include <NvInferRuntime.h>

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <new>

#include "../gpu/launch.h"

namespace swap_align2nat {
namespace {

using namespace nvinfer1;

constexpr const char *NAMESPACE = "tensormask_edu", *VERSION = "1", *LAM = "lam",
                     *PAD_VALUE = "pad_value";
constexpr const char* NAMES[2] = {"SwapAlign2Nat", "SwapAlign2NatWindows"};

// The numbers behind the names are compiled in, and the caller has its own: these hold from
// 10.0 to 11.1.
static_assert(int(DataType::kFLOAT) == 0 && int(DataType::kHALF) == 1 &&
                  int(DataType::kINT64) == 8,
              "");
static_assert(int(PluginFieldType::kFLOAT32) == 1 && int(PluginFieldType::kINT32) == 5, "");
static_assert(int(DimensionOperation::kPROD) == 1 && int(DimensionOperation::kCEIL_DIV) == 8,
              "");
static_assert(int(TensorFormat::kLINEAR) == 0 && int(PluginCapabilityType::kRUNTIME) == 2, "");

// One line on stderr: the runtimes' loggers differ from version to version.
__attribute__((format(printf, 2, 3))) int refuse(const char* op, const char* format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  std::fprintf(stderr, "%s: %s\n", op, text);
  return -1;
}

// ---------------------------------------------------------------- the layer

class Plugin final : public IPluginV3,
                     public IPluginV3OneCore,
                     public IPluginV3OneBuild,
                     public IPluginV3OneRuntime {
 public:
  Plugin(bool windows, int32_t lam, float pad_value)
      : windows_(windows), lam_(lam), pad_value_(pad_value) {
    std::snprintf(settings_, sizeof settings_, "%s=%d %s=%a", LAM, lam, PAD_VALUE,
                  double(pad_value));
  }
  Plugin(const Plugin& other) : Plugin(other.windows_, other.lam_, other.pad_value_) {}

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE:
        return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD:
        return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME:
        return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  IPluginV3* clone() noexcept override { return new (std::nothrow) Plugin(*this); }

  // core
  const char* getPluginName() const noexcept override { return NAMES[windows_]; }
  const char* getPluginVersion() const noexcept override { return VERSION; }
  const char* getPluginNamespace() const noexcept override { return NAMESPACE; }

  // build: types, formats, shapes
  int32_t getNbOutputs() const noexcept override { return 1; }
  char const* getTimingCacheID() noexcept override { return settings_; }
  char const* getMetadataString() noexcept override { return settings_; }

  int32_t getOutputDataTypes(DataType* out, int32_t, const DataType* in,
                             int32_t count) const noexcept override {
    if (count != inputs()) return refuse(name(), "expected %d inputs, got %d", inputs(), count);
    if (in[0] != DataType::kFLOAT && in[0] != DataType::kHALF)
      return refuse(name(), "x: expected float32 or float16, got type number %d", int(in[0]));
    if (windows_ && in[1] != DataType::kINT64)
      return refuse(name(), "index: expected int64, got type number %d", int(in[1]));
    out[0] = in[0];
    return 0;
  }

  // Positions: x, then index for windows, then out.
  bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors,
                                 int32_t inputs_given, int32_t) noexcept override {
    const PluginTensorDesc& here = tensors[position].desc;
    if (inputs_given != inputs() || here.format != TensorFormat::kLINEAR) return false;
    if (position == 0) return here.type == DataType::kFLOAT || here.type == DataType::kHALF;
    if (position < inputs_given) return here.type == DataType::kINT64;
    return here.type == tensors[0].desc.type;
  }

  int32_t getOutputShapes(const DimsExprs* in, int32_t count, const DimsExprs*, int32_t,
                          DimsExprs* out, int32_t,
                          IExprBuilder& expressions) noexcept override {
    if (count != inputs()) return refuse(name(), "expected %d inputs, got %d", inputs(), count);
    if (in[0].nbDims != 5)
      return refuse(name(), "x: expected (N, V, U, H, W), got %d axes", in[0].nbDims);
    if (windows_ && (in[1].nbDims != 2 ||
                     (in[1].d[1]->isConstant() && in[1].d[1]->getConstantValue() != 3)))
      return refuse(name(), "index: expected (K, 3)");
    const IDimensionExpr& lam = *expressions.constant(lam_);
    const auto fine = [&](int axis) {
      return expressions.operation(DimensionOperation::kPROD, *in[0].d[axis], lam);
    };
    const auto coarse = [&](int axis) {
      return expressions.operation(DimensionOperation::kCEIL_DIV, *in[0].d[axis], lam);
    };
    if (windows_)
      out[0] = {3, {in[1].d[0], fine(1), fine(2)}};
    else
      out[0] = {5, {in[0].d[0], fine(1), fine(2), coarse(3), coarse(4)}};
    return 0;
  }

  int32_t configurePlugin(const DynamicPluginTensorDesc*, int32_t,
                          const DynamicPluginTensorDesc*, int32_t) noexcept override {
    return 0;
  }

  // run
  int32_t onShapeChange(const PluginTensorDesc*, int32_t, const PluginTensorDesc*,
                        int32_t) noexcept override {
    return 0;
  }
  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override { return clone(); }

  int32_t enqueue(const PluginTensorDesc* in, const PluginTensorDesc*,
                  const void* const* inputs, void* const* outputs, void*,
                  cudaStream_t stream) noexcept override {
    const auto* d = in[0].dims.d;
    const Shape shape{d[0], d[1], d[2], d[3], d[4], lam_};
    const Type type = in[0].type == DataType::kHALF ? Type::HALF : Type::FLOAT;
    const int code =
        windows_
            ? launch_forward_windows(type, inputs[0], static_cast<const Index*>(inputs[1]),
                                     outputs[0], pad_value_, shape, in[1].dims.d[0], stream)
            : launch_forward(type, inputs[0], outputs[0], pad_value_, shape, stream);
    return code == 0 ? 0 : refuse(name(), "the kernel did not start: %s", launch_error(code));
  }

  // What a stored engine keeps: the fields that the creator reads.
  const PluginFieldCollection* getFieldsToSerialize() noexcept override {
    fields_[0] = {LAM, &lam_, PluginFieldType::kINT32, 1};
    fields_[1] = {PAD_VALUE, &pad_value_, PluginFieldType::kFLOAT32, 1};
    collection_ = {2, fields_};
    return &collection_;
  }

 private:
  const char* name() const { return NAMES[windows_]; }
  int32_t inputs() const { return windows_ ? 2 : 1; }

  bool windows_;
  int32_t lam_;
  float pad_value_;
  char settings_[64];
  PluginField fields_[2];
  PluginFieldCollection collection_{};
};

// ---------------------------------------------------------------- the creators

class Creator final : public IPluginCreatorV3One {
 public:
  explicit Creator(bool windows) : windows_(windows) {
    fields_[0] = {LAM, nullptr, PluginFieldType::kINT32, 1};
    fields_[1] = {PAD_VALUE, nullptr, PluginFieldType::kFLOAT32, 1};
  }

  const char* getPluginName() const noexcept override { return NAMES[windows_]; }
  const char* getPluginVersion() const noexcept override { return VERSION; }
  const char* getPluginNamespace() const noexcept override { return NAMESPACE; }
  const PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }

  IPluginV3* createPlugin(const char*, const PluginFieldCollection* given,
                          TensorRTPhase) noexcept override {
    const char* const op = NAMES[windows_];
    int32_t lam = 0;
    float pad_value = 0;
    for (const PluginField& field : fields_) {
      void* const value = field.name == LAM ? static_cast<void*>(&lam) : &pad_value;
      if (!read(field, given, value)) return nullptr;
    }
    for (int32_t i = 0; i < given->nbFields; ++i)
      if (std::strcmp(given->fields[i].name, LAM) != 0 &&
          std::strcmp(given->fields[i].name, PAD_VALUE) != 0)
        return refuse(op, "no attribute is called %s; lam and pad_value are",
                      given->fields[i].name),
               nullptr;
    if (lam < 1) return refuse(op, "lam: expected an integer >= 1, got %d", lam), nullptr;
    if (!std::isfinite(pad_value))
      return refuse(op, "pad_value: expected a finite number"), nullptr;
    return new (std::nothrow) Plugin(windows_, lam, pad_value);
  }

 private:
  // Copies the one number of a field; false, and a line on stderr, if it is missing or of
  // another type.
  bool read(const PluginField& wanted, const PluginFieldCollection* given, void* value) const {
    for (int32_t i = 0; given && i < given->nbFields; ++i) {
      const PluginField& field = given->fields[i];
      if (std::strcmp(field.name, wanted.name) != 0) continue;
      if (field.type == wanted.type && field.length == 1 && field.data) {
        std::memcpy(value, field.data, 4);
        return true;
      }
      refuse(NAMES[windows_], "%s: expected one number of field type %d, got %d of type %d",
             wanted.name, int(wanted.type), int(field.length), int(field.type));
      return false;
    }
    refuse(NAMES[windows_], "%s: the attribute is missing", wanted.name);
    return false;
  }

  bool windows_;
  PluginField fields_[2];
  PluginFieldCollection collection_{2, fields_};
};

}  // namespace
}  // namespace swap_align2nat

// ---------------------------------------------------------------- what the library exports

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginCreatorInterface* const*
getCreators(int32_t& count) {
  static swap_align2nat::Creator dense(false), windows(true);
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&dense, &windows};
  count = 2;
  return creators;
}

extern "C" __attribute__((visibility("default"))) void setLoggerFinder(
    nvinfer1::ILoggerFinder*) {}

// An ONNX file in ONNX Runtime, on the CPU, by its C API.
#include <onnxruntime_c_api.h>

#include "model.h"

namespace {

constexpr uint32_t API = 17;  // of ONNX Runtime 1.17, the oldest that reads these files

template <class T>
using Owned = std::unique_ptr<T, void(ORT_API_CALL*)(T*)>;

const OrtApi& api() {
  static const OrtApi* const found = OrtGetApiBase()->GetApi(API);
  if (!found) throw bad("ONNX Runtime", "1.17 or newer", OrtGetApiBase()->GetVersionString());
  return *found;
}

// What ONNX Runtime refuses, as one line.
void check(OrtStatus* status, const std::string& problem) {
  if (!status) return;
  const Owned<OrtStatus> owned(status, api().ReleaseStatus);
  std::string reason = api().GetErrorMessage(status);
  reason = reason.substr(0, std::min(reason.find('\n'), std::size_t(300)));
  throw InputError("model: " + problem + " (" + reason + "); export it again");
}

constexpr ONNXTensorElementDataType ELEMENTS[] = {  // by our `Type`
    ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
    ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL};

class OnnxModel final : public Model {
 public:
  OnnxModel(const std::string& path, const Options& options) {
    const std::string problem = path + " does not load in ONNX Runtime";
    OrtEnv* env = nullptr;
    check(api().CreateEnv(ORT_LOGGING_LEVEL_FATAL, "tensormask", &env), problem);
    env_.reset(env);
    OrtSessionOptions* given = nullptr;
    check(api().CreateSessionOptions(&given), problem);
    const Owned<OrtSessionOptions> owned(given, api().ReleaseSessionOptions);
    check(api().SetIntraOpNumThreads(given, options.threads), problem);
    OrtSession* session = nullptr;
    check(api().CreateSession(env, path.c_str(), given, &session), problem);
    session_.reset(session);
    read_metadata(path);
  }

  Outputs run(const std::vector<float>& images, const Shape& shape) override {
    const std::string problem = "the file does not run in ONNX Runtime";
    OrtMemoryInfo* memory = nullptr;
    check(api().CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory), problem);
    const Owned<OrtMemoryInfo> owned(memory, api().ReleaseMemoryInfo);
    // The API has one type for both directions: the input is not written to.
    auto* const data = const_cast<float*>(images.data());
    OrtValue* input = nullptr;
    check(api().CreateTensorWithDataAsOrtValue(memory, data, images.size() * sizeof(float),
                                               shape.data(), shape.size(), ELEMENTS[0], &input),
          problem);
    const Owned<OrtValue> given(input, api().ReleaseValue);
    Outputs outputs = planned(metadata, shape);
    std::vector<const char*> names;
    for (const auto& [name, _] : outputs) names.push_back(name.c_str());
    std::vector<OrtValue*> values(names.size(), nullptr);
    check(api().Run(session_.get(), nullptr, &IMAGES, &input, 1, names.data(), names.size(),
                    values.data()),
          problem);
    auto value = values.begin();
    for (auto& [name, output] : outputs) copy(*value++, name, output);
    return outputs;
  }

 private:
  void read_metadata(const std::string& path) {
    OrtModelMetadata* stored = nullptr;
    check(api().SessionGetModelMetadata(session_.get(), &stored), path);
    const Owned<OrtModelMetadata> owned(stored, api().ReleaseModelMetadata);
    OrtAllocator* allocator = nullptr;
    check(api().GetAllocatorWithDefaultOptions(&allocator), path);
    const auto look_up = [&](const char* key) {
      char* text = nullptr;
      check(api().ModelMetadataLookupCustomMetadataMap(stored, allocator, key, &text), path);
      if (!text) return;
      const std::string copied = text;
      allocator->Free(allocator, text);
      metadata[key] = Json::parse(copied);
    };
    for (const char* key : NEEDED) look_up(key);
    look_up(MODEL_CONFIG);
  }

  static void copy(OrtValue* value, const std::string& name, Output& output) {
    const Owned<OrtValue> owned(value, api().ReleaseValue);
    OrtTensorTypeAndShapeInfo* info = nullptr;
    check(api().GetTensorTypeAndShape(value, &info), name);
    const Owned<OrtTensorTypeAndShapeInfo> described(info, api().ReleaseTensorTypeAndShapeInfo);
    std::size_t rank = 0;
    ONNXTensorElementDataType type;
    check(api().GetDimensionsCount(info, &rank), name);
    check(api().GetTensorElementType(info, &type), name);
    Shape shape(rank);
    check(api().GetDimensions(info, shape.data(), rank), name);
    if (type != ELEMENTS[int(output.type)] || shape != output.shape)
      throw bad("model", name + " of shape " + shape_name(output.shape), shape_name(shape),
                "export it again");
    void* data = nullptr;
    check(api().GetTensorMutableData(value, &data), name);
    const char* const bytes = static_cast<const char*>(data);
    output.bytes.assign(bytes, bytes + output.size());
  }

  Owned<OrtEnv> env_{nullptr, api().ReleaseEnv};
  Owned<OrtSession> session_{nullptr, api().ReleaseSession};
};

}  // namespace

std::unique_ptr<Model> open_onnx(const std::string& path, const Options& options) {
  return std::make_unique<OnnxModel>(path, options);
}

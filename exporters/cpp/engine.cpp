// A TensorRT engine on a GPU, checked against its manifest before TensorRT sees a byte of it.
//
// Compiled against TensorRT's headers; not run yet.
#include <NvInferRuntime.h>
#include <cuda_runtime_api.h>
#include <openssl/evp.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "model.h"
#include "picture.h"  // file_bytes

namespace {

constexpr const char* AGAIN = "build the engine again: tensormask-export engine";

// Errors are kept for the exception, warnings go to stderr.
class Logger final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* text) noexcept override {
    if (severity <= Severity::kERROR)
      reason += (reason.empty() ? "" : "; ") + std::string(text);
    if (severity == Severity::kWARNING) std::cerr << "TensorRT: " << text << '\n';
  }
  std::string reason;
};

std::string sha256(const std::vector<uint8_t>& bytes) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  EVP_Digest(bytes.data(), bytes.size(), digest, &size, EVP_sha256(), nullptr);
  std::string text;
  for (unsigned i = 0; i < size; ++i)
    for (int digit : {digest[i] >> 4, digest[i] & 15}) text += "0123456789abcdef"[digit];
  return text;
}

void check(cudaError_t code, const char* what) {
  if (code != cudaSuccess)
    throw InputError(std::string("engine: ") + what + " (" + cudaGetErrorString(code) + ")");
}

Shape shape_of(const nvinfer1::Dims& dims) { return Shape(dims.d, dims.d + dims.nbDims); }

constexpr nvinfer1::DataType TYPES[] = {  // by our `Type`
    nvinfer1::DataType::kFLOAT, nvinfer1::DataType::kINT64, nvinfer1::DataType::kBOOL};

// Memory of the GPU.
using Memory = std::unique_ptr<void, void (*)(void*)>;

Memory allocated(std::size_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, std::max<std::size_t>(bytes, 1)), "no room on the GPU");
  return Memory(memory, [](void* each) { cudaFree(each); });
}

class EngineModel final : public Model {
 public:
  EngineModel(const std::string& path, const Options& options) {
    if (!std::filesystem::is_regular_file(path + ".json"))
      throw bad("engine", "its manifest " + path + ".json beside it", "none",
                std::string("copy it together with the engine, or ") + AGAIN);
    const std::vector<uint8_t> text = file_bytes("manifest", path + ".json");
    const Json manifest = Json::parse(text), bounds = manifest.at("profile").at(IMAGES);
    metadata = manifest.at("model").at("metadata");
    smallest = bounds.at("min").get<Shape>(), largest = bounds.at("max").get<Shape>();
    if (smallest.size() != 4 || largest.size() != 4)
      throw bad("manifest", "shapes Nx3xHxW", shape_name(largest), AGAIN);
    const std::string built_by = manifest.at("backend").at("name");
    if (built_by != WITH_ENGINE) throw bad("engine", "one of " WITH_ENGINE, built_by, AGAIN);
    const std::vector<uint8_t> plan = file_bytes("engine", path);
    if (sha256(plan) != manifest.at("engine").at("sha256"))
      throw bad("engine", "the file that its manifest describes", path + " of another SHA-256",
                std::string("copy both again, or ") + AGAIN);
    int gpus = 0;  // asked first: TensorRT makes no runtime without a driver, and says nothing
    if (cudaGetDeviceCount(&gpus) != cudaSuccess || gpus == 0)
      throw bad("engine", "an NVIDIA GPU and its driver", "none",
                "run the .onnx file here, engines need a GPU");
    load_plugin(manifest.at("plugin"), path, options.plugin_library);
    runtime_.reset(nvinfer1::createInferRuntime(logger_));
    if (runtime_) engine_.reset(runtime_->deserializeCudaEngine(plan.data(), plan.size()));
    if (engine_) context_.reset(engine_->createExecutionContext());
    if (!context_)
      throw InputError("engine: TensorRT does not load it: " + logger_.reason + "; " + AGAIN);
  }

  Outputs run(const std::vector<float>& images, const Shape& shape) override {
    Outputs outputs = planned(metadata, shape);
    nvinfer1::Dims input{4, {}};
    std::copy(shape.begin(), shape.end(), input.d);
    if (!context_->setInputShape(IMAGES, input))
      throw bad("image", "an input that the engine takes", shape_name(shape), AGAIN);
    std::map<std::string, Memory> memory;
    for (int32_t i = 0; i < engine_->getNbIOTensors(); ++i) {
      const char* const name = engine_->getIOTensorName(i);
      const auto output = outputs.find(name);
      const Shape found = shape_of(context_->getTensorShape(name));
      const bool is_input = std::string(name) == IMAGES;
      if (!is_input && (output == outputs.end() || found != output->second.shape ||
                        engine_->getTensorDataType(name) != TYPES[int(output->second.type)]))
        throw bad("engine", "the outputs of tensormask-export",
                  std::string(name) + " of shape " + shape_name(found), AGAIN);
      const std::size_t bytes =
          is_input ? images.size() * sizeof(float) : output->second.size();
      memory.emplace(name, allocated(bytes));
      context_->setTensorAddress(name, memory.at(name).get());
    }
    if (memory.size() != outputs.size() + 1)
      throw bad("engine", "the input and outputs of tensormask-export", "fewer", AGAIN);
    check(cudaMemcpy(memory.at(IMAGES).get(), images.data(), images.size() * sizeof(float),
                     cudaMemcpyHostToDevice),
          "the picture was not copied");
    if (!context_->enqueueV3(cudaStreamPerThread))
      throw InputError("engine: TensorRT did not run it: " + logger_.reason);
    check(cudaStreamSynchronize(cudaStreamPerThread), "the engine did not end well");
    for (auto& [name, output] : outputs) {
      output.bytes.resize(output.size());
      check(cudaMemcpy(output.bytes.data(), memory.at(name).get(), output.size(),
                       cudaMemcpyDeviceToHost),
            "the outputs were not copied");
    }
    return outputs;
  }

 private:
  // The plugin that the engine was built with: given, of $TENSORMASK_PLUGIN, or beside it. A
  // library is a program: no place that the manifest names is looked at.
  static void load_plugin(const Json& built_with, const std::string& path,
                          const std::string& given) {
    if (built_with.at("kind") == "none") return;
    if (built_with.at("kind") != "cpp")
      throw bad("engine", "one with the C++ plugin or none", "one with Python's",
                "build it with --plugin cpp or --plugin none");
    const char* const named = std::getenv("TENSORMASK_PLUGIN");
    const std::string name =
        std::filesystem::path(built_with.at("library").get<std::string>()).filename();
    const std::string beside = (std::filesystem::path(path).parent_path() / name).string();
    const std::string library = !given.empty() ? given : named ? named : beside;
    if (!std::filesystem::is_regular_file(library))
      throw bad("plugin", name + ", which the engine needs", "no such file",
                "pass --plugin-library FILE, or put it beside the engine");
    if (sha256(file_bytes("plugin", library)) != built_with.at("sha256"))
      throw bad("plugin", "the library of the build", "another one, " + library, AGAIN);
    if (!getPluginRegistry()->loadLibrary(library.c_str()))
      throw InputError("plugin: " + library + " does not load here");
  }

  Logger logger_;
  std::unique_ptr<nvinfer1::IRuntime> runtime_;
  std::unique_ptr<nvinfer1::ICudaEngine> engine_;
  std::unique_ptr<nvinfer1::IExecutionContext> context_;
};

}  // namespace

std::unique_ptr<Model> open_engine(const std::string& path, const Options& options) {
  return std::make_unique<EngineModel>(path, options);
}

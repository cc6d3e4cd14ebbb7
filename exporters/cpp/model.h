// What both sides of a file agree on (`contract.py` has the same words), and whatever computes
// one: a picture's numbers in, arrays out.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

using Json = nlohmann::json;
using Shape = std::vector<int64_t>;

// Bad input: one line that says what was expected, what came and what to do.
struct InputError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline InputError bad(const std::string& argument, const std::string& expected,
                      const std::string& got, const std::string& fix = "") {
  const std::string text = argument + ": expected " + expected + ", got " + got;
  return InputError(fix.empty() ? text : text + "; " + fix);
}

// Metadata: every value of an ONNX file is JSON text, a manifest has the values themselves.
constexpr const char* CLASS_NAMES = "tensormask_edu.class_names";
constexpr const char* WINDOWS = "tensormask_edu.windows";
constexpr const char* STRIDES_PX = "tensormask_edu.strides_px";
constexpr const char* PREPROCESSING = "tensormask_edu.preprocessing";
constexpr const char* INPUT_CONFIG = "tensormask_edu.input_config";
constexpr const char* DETECTOR = "tensormask_edu.detector";
constexpr const char* MODEL_CONFIG = "tensormask_edu.model_config";  // older files lack it
constexpr const char* NEEDED[] = {CLASS_NAMES,   WINDOWS,      STRIDES_PX,
                                  PREPROCESSING, INPUT_CONFIG, DETECTOR};

// The input, float32 (N, 3, H, W) RGB in [0, 1], and the outputs with their types.
constexpr const char* IMAGES = "images";
enum class Type { FLOAT, INT64, BOOL };
constexpr std::size_t BYTES[] = {4, 8, 1};
constexpr int CANVAS_BORDER = 2;

struct Output {
  Type type;
  Shape shape;
  std::vector<char> bytes;

  template <class T>
  const T* as() const {
    return reinterpret_cast<const T*>(bytes.data());
  }
  std::size_t size() const {
    std::size_t count = BYTES[int(type)];
    for (int64_t side : shape) count *= std::size_t(side);
    return count;
  }
};
using Outputs = std::map<std::string, Output>;

// The outputs of an input shape (N, 3, H, W): the contract tells types and shapes before
// anything runs. What a model gives is compared with them, so nothing is read out of bounds.
inline Outputs planned(const Json& metadata, const Shape& input) {
  const int64_t num = input[0], places = metadata.at(DETECTOR).at("detections");
  const int64_t stride_px = metadata.at(STRIDES_PX).at(0);
  if (stride_px < 1 || places < 1) throw bad("model", "metadata of tensormask-export", "0");
  const int64_t rows = input[2] / stride_px + CANVAS_BORDER;
  const int64_t columns = input[3] / stride_px + CANVAS_BORDER;
  return {{"boxes", {Type::FLOAT, {num, places, 4}, {}}},
          {"scores", {Type::FLOAT, {num, places}, {}}},
          {"labels", {Type::INT64, {num, places}, {}}},
          {"windows", {Type::INT64, {num, places, 4}, {}}},
          {"masks", {Type::FLOAT, {num, places, rows, columns}, {}}},
          {"count", {Type::INT64, {num}, {}}},
          {"nms_converged", {Type::BOOL, {num}, {}}}};
}

inline std::string shape_name(const Shape& shape) {  // 1x3x128x128
  std::string text;
  for (int64_t side : shape) text += (text.empty() ? "" : "x") + std::to_string(side);
  return text;
}

struct Options {
  std::string plugin_library;
  int threads = 0;  // of the CPU, for an ONNX file; 0: as many as it has cores
};

class Model {
 public:
  virtual ~Model() = default;
  virtual Outputs run(const std::vector<float>& images, const Shape& shape) = 0;

  Json metadata;
  Shape smallest = {1, 3, 1, 1}, largest;  // input shapes of an engine; of a file all fit
};

// Each is in a build that found its runtime, see CMakeLists.txt.
std::unique_ptr<Model> open_onnx(const std::string& path, const Options& options);
std::unique_ptr<Model> open_engine(const std::string& path, const Options& options);

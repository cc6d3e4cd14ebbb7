// From a model's outputs to detections in a picture's own pixels, and their JSON. What
// `runtimes/detections.py` and `evaluation/results.py` do.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "model.h"

struct Detection {
  std::array<float, 4> box;  // x0, y0, x1, y1 in pixels
  float score;
  int64_t label;
  std::vector<uint8_t> mask;  // (height, width), 0 or 1
};

struct Size {
  int height, width;
};

// For one axis: between which bins of the canvas each pixel inside the window lies.
struct Line {
  int begin = 0;  // the first pixel inside
  std::vector<int64_t> bin;  // the first of its two bins
  std::vector<float> weight;  // of the second
};

inline Line between_bins(int64_t centre_px, const Json& kind, int input_length,
                         int output_length, int64_t bins) {
  const double scale = double(input_length) / output_length, bin_px = kind.at("bin_px");
  const double reach = kind.at("side_px").get<double>() / 2;
  // One bin of border comes first; a window of an even number of bins lies half a bin off.
  const double shift = kind.at("side_bins").get<int64_t>() % 2 ? 0 : 0.5;
  Line line;
  for (int i = 0; i < output_length; ++i) {
    const double pixel = (i + 0.5) * scale;
    if (!(std::abs(pixel - double(centre_px)) <= reach)) continue;
    const double place = pixel / bin_px + 1 - shift, first = std::floor(place);
    if (!(first >= 0 && first + 1 < double(bins)))
      throw bad("model", "a window that lies on the canvas", std::to_string(centre_px));
    if (line.bin.empty()) line.begin = i;
    line.bin.push_back(int64_t(first));
    line.weight.push_back(float(place - first));
  }
  return line;
}

// One canvas of probabilities (rows, columns) as a mask: 1 where they reach the threshold.
inline std::vector<uint8_t> pasted(const float* canvas, const Shape& shape,
                                   const int64_t* window, const Json& metadata, Size input,
                                   Size output, float threshold) {
  const Json& kinds = metadata.at(WINDOWS);
  const auto kind = std::find_if(kinds.begin(), kinds.end(), [&](const Json& each) {
    return each.at("level") == window[0] && each.at("size_id") == window[1];
  });
  if (kind == kinds.end())
    throw bad("model", "a window that the file's metadata lists", shape_name({window[0]}));
  const int64_t stride_px = kind->at("stride_px"), columns = shape[3];
  const Line down = between_bins(window[2] * stride_px, *kind, input.height, output.height,
                                 shape[2]);
  const Line across = between_bins(window[3] * stride_px, *kind, input.width, output.width,
                                   columns);
  std::vector<uint8_t> mask(std::size_t(output.height) * output.width);
  for (std::size_t i = 0; i < down.bin.size(); ++i)
    for (std::size_t j = 0; j < across.bin.size(); ++j) {
      // Linear between two bins: down the rows, then along them, in the order of the reference.
      const float* const bin = canvas + down.bin[i] * columns + across.bin[j];
      const float y = down.weight[i], x = across.weight[j];
      const float left = bin[0] * (1 - y) + bin[columns] * y;
      const float right = bin[1] * (1 - y) + bin[columns + 1] * y;
      const std::size_t place = (down.begin + i) * output.width + across.begin + j;
      mask[place] = left * (1 - x) + right * x >= threshold;
    }
  return mask;
}

// The mean probability of the bins that reach the threshold, 0 if none does.
inline float sureness(const float* canvas, std::size_t bins, float threshold) {
  double sum = 0;
  int64_t drawn = 0;
  for (std::size_t i = 0; i < bins; ++i)
    if (canvas[i] >= threshold) sum += canvas[i], ++drawn;
  return drawn ? float(sum / double(drawn)) : 0;
}

// The detections of the first picture of a batch, best first, those below `score` left out.
inline std::vector<Detection> detections(const Outputs& outputs, const Json& metadata,
                                         Size input, Size output, float score) {
  const Shape& shape = outputs.at("masks").shape;  // (N, D, rows, columns)
  const std::size_t bins = std::size_t(shape[2] * shape[3]);
  const Json config = metadata.value(MODEL_CONFIG, Json::object());
  const float threshold = config.value("mask_threshold", 0.5f);
  const float power = config.value("mask_score_power", 0.0f);
  const float growth[2] = {float(double(output.width) / input.width),
                           float(double(output.height) / input.height)};
  const float limit[2] = {float(output.width), float(output.height)};
  const int64_t count = outputs.at("count").as<int64_t>()[0];
  if (count < 0 || count > shape[1])
    throw bad("model", "a count of detections", std::to_string(count), "export it again");
  std::vector<Detection> found;
  for (std::size_t d = 0; d < std::size_t(count); ++d) {
    Detection one{{}, outputs.at("scores").as<float>()[d],
                  outputs.at("labels").as<int64_t>()[d], {}};
    for (std::size_t i = 0; i < 4; ++i) {
      const float side = outputs.at("boxes").as<float>()[4 * d + i] * growth[i % 2];
      one.box[i] = std::clamp(side, 0.0f, limit[i % 2]);
    }
    if (!(one.box[2] > one.box[0] && one.box[3] > one.box[1])) continue;
    const float* const canvas = outputs.at("masks").as<float>() + d * bins;
    if (power != 0) one.score *= std::pow(sureness(canvas, bins, threshold), power);
    if (!(one.score >= score)) continue;
    one.mask = pasted(canvas, shape, outputs.at("windows").as<int64_t>() + 4 * d, metadata,
                      input, output, threshold);
    found.push_back(std::move(one));
  }
  std::stable_sort(found.begin(), found.end(), [](const Detection& a, const Detection& b) {
    return a.score > b.score;
  });
  return found;
}

// COCO's compressed run lengths: pixels down the columns, zeros first; a number is text of five
// bits a character, from the fourth on its difference to the one before the last.
inline std::string run_lengths(const std::vector<uint8_t>& mask, Size size) {
  std::vector<int64_t> runs;
  uint8_t now = 0;
  int64_t length = 0;
  for (int x = 0; x < size.width; ++x)
    for (int y = 0; y < size.height; ++y) {
      const uint8_t pixel = mask[std::size_t(y) * size.width + x];
      if (pixel != now) runs.push_back(length), length = 0, now = pixel;
      ++length;
    }
  runs.push_back(length);
  std::string text;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    int64_t rest = i > 2 ? runs[i] - runs[i - 2] : runs[i];
    for (bool more = true; more;) {
      int64_t bits = rest & 31;
      rest >>= 5;
      more = bits & 16 ? rest != -1 : rest != 0;
      text += char((more ? bits | 32 : bits) + 48);
    }
  }
  return text;
}

// In the form of a COCO results file; a number is that of its float, as Python writes it.
inline nlohmann::ordered_json to_json(const std::vector<Detection>& found, const Json& metadata,
                                      const std::string& image_id, Size size) {
  const Json& names = metadata.at(CLASS_NAMES);
  const Json config = metadata.value(MODEL_CONFIG, Json::object());
  const Json ids = config.value("category_ids", Json::array());
  auto list = nlohmann::ordered_json::array();
  for (const Detection& one : found) {
    if (one.label < 0 || one.label >= int64_t(names.size()))
      throw bad("model", "labels below its " + std::to_string(names.size()) + " classes",
                std::to_string(one.label), "export it again");
    const auto [x0, y0, x1, y1] = one.box;
    list.push_back({{"image_id", image_id},
                    {"category_id", ids.empty() ? Json(one.label + 1) : ids.at(one.label)},
                    {"score", double(one.score)},
                    {"bbox", {double(x0), double(y0), double(x1) - x0, double(y1) - y0}},
                    {"segmentation",
                     {{"size", {size.height, size.width}},
                      {"counts", run_lengths(one.mask, size)}}}});
  }
  return list;
}

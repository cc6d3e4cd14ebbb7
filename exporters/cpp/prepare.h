// From pixels to the model's input: contrast, size, padding. What `data/prepare.py` and Pillow
// do, to the last bit but for the sums of a resize.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>

#include "model.h"
#include "picture.h"

struct Planes {  // (3, height, width) float32 in [0, 1]
  int height, width;
  std::vector<float> values;
};

// The pixel values that become 0 and 1: the config's percentiles, over all pixels and colours.
inline std::array<int, 2> intensity_range(const Picture& picture, const Json& percentiles) {
  if (percentiles.is_null()) return {0, 255};
  std::array<int64_t, 256> counts{};  // pixels up to each value
  for (uint8_t pixel : picture.pixels) ++counts[pixel];
  for (int value = 1; value < 256; ++value) counts[value] += counts[value - 1];
  std::array<int, 2> found{};
  for (int end : {0, 1}) {
    const double share = percentiles.at(end).get<double>() / 100 * double(counts[255]);
    const auto place = std::find_if(counts.begin(), counts.end(),
                                    [=](int64_t count) { return double(count) >= share; });
    found[end] = int(place - counts.begin());
  }
  return {found[0], std::max(found[1], found[0] + 1)};  // of one colour: all 0
}

inline Planes stretched(const Picture& picture, const std::array<int, 2>& range) {
  const float low = float(range[0]), high = float(range[1]);
  const std::size_t area = std::size_t(picture.height) * picture.width;
  Planes planes{picture.height, picture.width, std::vector<float>(3 * area)};
  for (std::size_t i = 0; i < area; ++i)
    for (std::size_t c = 0; c < 3; ++c) {
      const float value = (float(picture.pixels[3 * i + c]) - low) / (high - low);
      planes.values[c * area + i] = std::clamp(value, 0.0f, 1.0f);
    }
  return planes;
}

// The taps of one axis: where each output pixel begins to read, and its weights.
struct Taps {
  std::vector<int> first;
  std::vector<std::vector<double>> weights;
};

// Bilinear; where it shrinks, a mean of all that a pixel covers.
inline Taps resize_taps(int length, int output_length) {
  const double scale = double(length) / output_length, reach = std::max(scale, 1.0);
  const double narrowed = 1 / reach;
  Taps taps;
  for (int i = 0; i < output_length; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::max(0, int(centre - reach + 0.5));
    const int end = std::min(length, int(centre + reach + 0.5));
    std::vector<double> weights;
    double sum = 0;
    for (int j = first; j < end; ++j) {
      weights.push_back(std::max(0.0, 1 - std::abs((j - centre + 0.5) * narrowed)));
      sum += weights.back();
    }
    for (double& weight : weights) weight /= sum;
    taps.first.push_back(first);
    taps.weights.push_back(weights);
  }
  return taps;
}

// Along x, then along y; a line of length 1 between two taps' reads is `step` numbers long.
inline Planes resized(const Planes& planes, int height, int width) {
  const Taps across = resize_taps(planes.width, width);
  const Taps down = resize_taps(planes.height, height);
  const std::size_t rows = std::size_t(3) * planes.height;
  Planes lines{planes.height, width, std::vector<float>(rows * width)};
  for (std::size_t row = 0; row < rows; ++row)
    for (int x = 0; x < width; ++x) {
      const float* const read =
          &planes.values[row * planes.width + across.first[x]];
      double sum = 0;
      for (std::size_t k = 0; k < across.weights[x].size(); ++k)
        sum += read[k] * across.weights[x][k];
      lines.values[row * width + x] = float(sum);
    }
  Planes found{height, width, std::vector<float>(std::size_t(3) * height * width)};
  for (int c = 0; c < 3; ++c)
    for (int y = 0; y < height; ++y)
      for (int x = 0; x < width; ++x) {
        const std::size_t row = std::size_t(c) * planes.height + down.first[y];
        double sum = 0;
        for (std::size_t k = 0; k < down.weights[y].size(); ++k)
          sum += lines.values[(row + k) * width + x] * down.weights[y][k];
        found.values[(std::size_t(c) * height + y) * width + x] =
            std::clamp(float(sum), 0.0f, 1.0f);
      }
  return found;
}

// The model's input for a picture, before it is padded.
inline Planes prepare(const Picture& picture, const Json& config) {
  double factor = config.value("enlarge", 1.0);
  const Json short_side = config.value("short_side_px", Json());
  if (!short_side.is_null()) {
    const auto [shorter, longer] = std::minmax(picture.height, picture.width);
    factor = std::min(short_side.get<double>() / shorter,
                      config.value("long_side_px", 1333.0) / longer);
  }
  const double longest = factor * std::max(picture.height, picture.width);
  if (!(factor > 0) || longest > LARGEST_SIDE_PX)
    throw bad("model", "a picture of at most " + std::to_string(LARGEST_SIDE_PX) + " px",
              std::to_string(longest), "make the picture smaller");
  const int height = std::max(1, int(picture.height * factor + 0.5));
  const int width = std::max(1, int(picture.width * factor + 0.5));
  const Json percentiles = config.value("stretch_percentiles", Json());
  const Planes planes = stretched(picture, intensity_range(picture, percentiles));
  const bool same = height == picture.height && width == picture.width;
  return same ? planes : resized(planes, height, width);
}

// The input (N, 3, H, W): the picture lies at the top left, beyond it is the padding colour.
inline std::vector<float> padded(const Planes& planes, const Model& model, Shape& shape) {
  const Json& given = model.metadata.at(PREPROCESSING);
  const int64_t padding_px = given.at("padding_px");
  if (padding_px < 1) throw bad("model", "padding_px of 1 or more", std::to_string(padding_px));
  const auto up = [=](int64_t side) {
    return (side + padding_px - 1) / padding_px * padding_px;
  };
  shape = {1, 3, up(planes.height), up(planes.width)};
  for (int axis : {0, 2, 3}) shape[axis] = std::max(shape[axis], model.smallest[axis]);
  for (int axis : {0, 2, 3})
    if (!model.largest.empty() && shape[axis] > model.largest[axis])
      throw bad("image", "an input up to " + shape_name(model.largest), shape_name(shape),
                "build the engine for larger ones: tensormask-export engine --max");
  const std::size_t area = std::size_t(shape[2]) * shape[3];
  std::vector<float> images(std::size_t(shape[0]) * 3 * area);
  for (std::size_t plane = 0; plane < std::size_t(shape[0]) * 3; ++plane) {
    float* const out = &images[plane * area];
    std::fill(out, out + area, given.at("padding_colour").at(plane % 3).get<float>());
    for (int y = 0; y < planes.height && plane < 3; ++y) {
      const float* const line =
          &planes.values[(plane * planes.height + y) * std::size_t(planes.width)];
      std::copy(line, line + planes.width, out + y * shape[3]);
    }
  }
  return images;
}

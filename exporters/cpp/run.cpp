// A picture through an exported model, without Python: what `tensormask-export predict` lists.
//
//   tensormask-run MODEL PICTURE --output FOLDER [--score 0.5]
//
// Read in this order: picture.h (files as pixels), prepare.h (pixels as the model's input),
// model.h (what computes it: onnx.cpp, engine.cpp), detections.h (its outputs as masks).
//
// FOLDER gets detections.json, a COCO results file equal to Python's, and the masks as
// NAME.png: a pixel's number is that of the best detection there, from 1; 0 is background. Exit
// code 2: bad input, told in one line.
#include <cstdio>
#include <functional>
#include <iostream>
#include <new>
#include <unistd.h>

#include "detections.h"
#include "model.h"
#include "picture.h"
#include "prepare.h"

namespace fs = std::filesystem;

namespace {

constexpr const char* USAGE =
    "usage: tensormask-run MODEL PICTURE --output FOLDER [--score 0.5] [--threads N]\n"
    "                      [--plugin-library FILE.so]\n"
    "\n"
    "Segments a PNG or JPEG with a file of `tensormask-export onnx`, or an engine with its\n"
    "manifest beside it. Writes detections.json (COCO results) and NAME.png (numbered masks).\n"
    "--threads is for a .onnx file, --plugin-library for an engine that was built with one.\n"
    "This build runs: "
#ifdef WITH_ONNX
    ".onnx files "
#endif
#ifdef WITH_ENGINE
    "engines of " WITH_ENGINE
#endif
    "\n";

// A picture's masks are made whole, a byte per pixel.
constexpr double MASK_BYTES = 4e9;

struct Arguments : Options {
  std::string model, picture, output;
  double score = 0.5;
};

double number(const std::string& name, const std::string& text, double least, double most) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  if (text.empty() || *end || !(value >= least && value <= most))
    throw bad(name, "a number from " + Json(least).dump() + " to " + Json(most).dump(), text);
  return value;
}

Arguments parsed(const std::vector<std::string>& words) {
  Arguments given;
  std::vector<std::string> places;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string& word = words[i];
    if (word.rfind("--", 0) != 0) {
      places.push_back(word);
      continue;
    }
    const std::string value = i + 1 < words.size() ? words[++i] : "";
    if (word == "--output")
      given.output = value;
    else if (word == "--score")
      given.score = number(word, value, 0, 1);
    else if (word == "--threads")
      given.threads = int(number(word, value, 0, 1024));
    else if (word == "--plugin-library")
      given.plugin_library = value;
    else
      throw bad("arguments", "--output, --score, --threads, --plugin-library", word);
  }
  if (places.size() != 2 || given.output.empty())
    throw bad("arguments", "MODEL PICTURE --output FOLDER", std::to_string(places.size()) +
              " without dashes", "tensormask-run --help");
  given.model = places[0], given.picture = places[1];
  return given;
}

bool is_onnx(std::string path) {  // by its name, .ONNX too
  std::transform(path.begin(), path.end(), path.begin(), ::tolower);
  return fs::path(path).extension() == ".onnx";
}

std::unique_ptr<Model> opened(const Arguments& given) {
  if (!fs::is_regular_file(given.model))
    throw bad("model", "an existing .onnx file or engine", given.model, "check the path");
  if (is_onnx(given.model)) {
#ifdef WITH_ONNX
    return open_onnx(given.model, given);
#endif
    throw bad("model", "an engine", given.model, "this build has no ONNX Runtime");
  }
#ifdef WITH_ENGINE
  return open_engine(given.model, given);
#endif
  throw bad("model", "a .onnx file", given.model, "this build has no TensorRT");
}

void check_metadata(const Model& model, const std::string& path) {
  for (const char* key : NEEDED)
    if (!model.metadata.contains(key))
      throw bad("model", "an ONNX file of tensormask-export, or an engine of one",
                path + " without the metadata " + key, "export it again");
}

// Files are whole or absent: written beside their place, then renamed.
void written(const fs::path& path, const std::function<void(const std::string&)>& write) {
  const fs::path beside = path.parent_path() / ("." + path.filename().string() + "." +
                                                std::to_string(getpid()));
  std::error_code removed;
  try {
    write(beside.string());
    fs::rename(beside, path);
  } catch (...) {
    fs::remove(beside, removed);
    throw;
  }
}

void write_text(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text << '\n' << std::flush;
  if (!file) throw InputError(path + ": cannot be written (" + std::strerror(errno) + ")");
}

// The number of the best detection in each pixel; later ones lie below, as in a stack.
std::vector<uint8_t> numbered(const std::vector<Detection>& found, const Picture& picture) {
  std::vector<uint8_t> numbers(std::size_t(picture.height) * picture.width);
  for (std::size_t d = std::min<std::size_t>(found.size(), 255); d-- > 0;)
    for (std::size_t i = 0; i < numbers.size(); ++i)
      if (found[d].mask[i]) numbers[i] = uint8_t(d + 1);
  return numbers;
}

void run(const Arguments& given) {
  const fs::path picture_path = given.picture, folder = given.output;
  const Picture picture = read_picture(given.picture);
  std::error_code absent;
  if (fs::equivalent(fs::absolute(picture_path).parent_path(), folder, absent))
    throw bad("output", "a place of its own", given.output + ", where the picture lies",
              "choose another");
  const std::unique_ptr<Model> model = opened(given);
  check_metadata(*model, given.model);
  const double places = model->metadata.at(DETECTOR).at("detections");
  if (places * picture.height * picture.width > MASK_BYTES)
    throw bad("image", "a picture whose masks fit in 4 GB", given.picture, "make it smaller");

  const Planes planes = prepare(picture, model->metadata.at(INPUT_CONFIG));
  Shape shape;
  const std::vector<float> images = padded(planes, *model, shape);
  const Outputs outputs = model->run(images, shape);
  if (!outputs.at("nms_converged").bytes[0])
    std::cerr << "warning: the file's NMS did not come to rest on this picture\n";
  const Size size{picture.height, picture.width};
  const std::vector<Detection> found =
      detections(outputs, model->metadata, {planes.height, planes.width}, size,
                 float(given.score));
  const std::string name = picture_path.filename().string();
  // In ASCII, as Python's, whatever a file's name is made of
  const std::string text = to_json(found, model->metadata, name, size)
                               .dump(2, ' ', true, Json::error_handler_t::replace);

  fs::create_directories(folder);
  const fs::path masks = folder / (picture_path.stem().string() + ".png");
  written(masks, [&](const std::string& path) {
    write_numbers(path, size.height, size.width, numbered(found, picture));
  });
  written(folder / "detections.json",
          [&](const std::string& path) { write_text(path, text); });
  std::cout << masks.string() << '\n';
}

}  // namespace

int main(int count, char** words) {
  const std::vector<std::string> given(words + 1, words + count);
  if (given.empty() || given[0] == "--help" || given[0] == "-h") {
    std::cout << USAGE;
    return given.empty() ? 2 : 0;
  }
  try {
    run(parsed(given));
    return 0;
  } catch (const Json::exception& error) {  // a value of another kind than the exporter's
    std::cerr << "error: model: expected metadata of tensormask-export, got another ("
              << error.what() << "); export it again\n";
  } catch (const std::bad_alloc&) {
    std::cerr << "error: image: no room in memory; make the picture smaller\n";
  } catch (const fs::filesystem_error& error) {
    std::cerr << "error: " << error.path1().string() << ": cannot be written ("
              << error.code().message() << "); choose a place that may be written\n";
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
  }
  return 2;
}

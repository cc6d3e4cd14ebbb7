// Picture files: PNG and JPEG as RGB pixels, upright; numbered masks as a PNG.
#pragma once

#include <jerror.h>
#include <jpeglib.h>
#include <png.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "model.h"

constexpr int LARGEST_SIDE_PX = 1 << 15;
constexpr int64_t LARGEST_PX = (1 << 29) / 3;  // of a picture: half a gigabyte

struct Picture {  // (height, width, 3) RGB
  int height, width;
  std::vector<uint8_t> pixels;
};

inline std::vector<uint8_t> file_bytes(const std::string& argument, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!std::filesystem::is_regular_file(path) || !file)
    throw bad(argument, "an existing file", path, "check the path");
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline Picture blank(int64_t height, int64_t width) {
  if (height * width > LARGEST_PX)
    throw InputError("more than " + std::to_string(LARGEST_PX) + " pixels");
  return {int(height), int(width), std::vector<uint8_t>(std::size_t(3 * height * width))};
}

// EXIF's number for how the camera was held, 1 where nothing is said. `exif` begins with the
// byte order: II or MM, 42, where the entries begin; an entry has 12 bytes.
inline int orientation(const uint8_t* exif, std::size_t size) {
  const bool little = size > 1 && exif[0] == 'I';
  const auto number = [&](std::size_t at, std::size_t bytes) {
    std::size_t value = 0;
    for (std::size_t i = 0; i < bytes && at + bytes <= size; ++i)
      value = value << 8 | exif[at + (little ? bytes - 1 - i : i)];
    return value;
  };
  const std::size_t begin = number(4, 4), entries = number(begin, 2);
  for (std::size_t i = 0; i < entries; ++i)
    if (number(begin + 2 + 12 * i, 2) == 0x0112) return int(number(begin + 10 + 12 * i, 2));
  return 1;
}

// The picture as it is looked at; 5 to 8 exchange its sides.
inline Picture upright(const Picture& stored, int turn) {
  if (turn < 2 || turn > 8) return stored;
  const bool exchanged = turn >= 5;
  Picture found = exchanged ? blank(stored.width, stored.height) : stored;
  for (int y = 0; y < found.height; ++y)
    for (int x = 0; x < found.width; ++x) {
      int row = exchanged ? x : y, column = exchanged ? y : x;
      if (turn == 3 || turn == 4 || turn == 6 || turn == 7) row = stored.height - 1 - row;
      if (turn == 2 || turn == 3 || turn == 7 || turn == 8) column = stored.width - 1 - column;
      std::memcpy(&found.pixels[3 * (std::size_t(y) * found.width + x)],
                  &stored.pixels[3 * (std::size_t(row) * stored.width + column)], 3);
    }
  return found;
}

// Both libraries report by a function that must not return. It throws: their frames hold
// nothing that has to be undone, and compilers write unwind tables for C, too.
inline Picture read_png(const std::vector<uint8_t>& file) {
  struct Reader {
    png_structp png = nullptr;
    png_infop info = nullptr;
    ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
  } reader;
  reader.png = png_create_read_struct(
      PNG_LIBPNG_VER_STRING, nullptr,
      [](png_structp, png_const_charp reason) { throw InputError(reason); },
      [](png_structp, png_const_charp) {});
  reader.info = png_create_info_struct(reader.png);
  struct Source {
    const uint8_t* next;
    const uint8_t* end;
  } source{file.data(), file.data() + file.size()};
  png_set_read_fn(reader.png, &source, [](png_structp png, png_bytep out, png_size_t count) {
    auto& from = *static_cast<Source*>(png_get_io_ptr(png));
    if (count > std::size_t(from.end - from.next)) png_error(png, "the file is cut off");
    std::memcpy(out, from.next, count);
    from.next += count;
  });
  png_read_info(reader.png, reader.info);
  if (png_get_bit_depth(reader.png, reader.info) > 8)
    throw InputError("more than 8 bits per colour; `tensormask-export predict` scales them");
  const int colours = png_get_color_type(reader.png, reader.info);
  if (colours == PNG_COLOR_TYPE_PALETTE) png_set_palette_to_rgb(reader.png);
  if (!(colours & PNG_COLOR_MASK_COLOR)) {
    png_set_expand_gray_1_2_4_to_8(reader.png);
    png_set_gray_to_rgb(reader.png);
  }
  png_set_strip_alpha(reader.png);
  png_set_interlace_handling(reader.png);
  Picture picture = blank(png_get_image_height(reader.png, reader.info),
                          png_get_image_width(reader.png, reader.info));
  png_read_update_info(reader.png, reader.info);
  if (png_get_rowbytes(reader.png, reader.info) != std::size_t(3) * picture.width)
    throw InputError("colours that are not RGB");
  std::vector<png_bytep> rows;
  for (int y = 0; y < picture.height; ++y)
    rows.push_back(&picture.pixels[std::size_t(3) * y * picture.width]);
  png_read_image(reader.png, rows.data());
  png_read_end(reader.png, reader.info);
  png_bytep exif = nullptr;
  png_uint_32 size = 0;
  png_get_eXIf_1(reader.png, reader.info, &size, &exif);
  return upright(picture, exif ? orientation(exif, size) : 1);
}

inline Picture read_jpeg(const std::vector<uint8_t>& file) {
  jpeg_error_mgr errors;
  jpeg_std_error(&errors);
  errors.error_exit = [](j_common_ptr jpeg) {
    char reason[JMSG_LENGTH_MAX];
    jpeg->err->format_message(jpeg, reason);
    throw InputError(reason);
  };
  // A warning is for what can be mended, but for the end of the file.
  errors.emit_message = [](j_common_ptr jpeg, int) {
    if (jpeg->err->msg_code == JWRN_JPEG_EOF) jpeg->err->error_exit(jpeg);
  };
  jpeg_decompress_struct jpeg;
  jpeg.err = &errors;
  jpeg_create_decompress(&jpeg);
  const std::unique_ptr<jpeg_decompress_struct, void (*)(j_decompress_ptr)> owned(
      &jpeg, jpeg_destroy_decompress);
  jpeg_mem_src(&jpeg, file.data(), file.size());
  jpeg_save_markers(&jpeg, JPEG_APP0 + 1, 0xFFFF);
  jpeg_read_header(&jpeg, TRUE);
  if (jpeg.jpeg_color_space == JCS_CMYK || jpeg.jpeg_color_space == JCS_YCCK)
    throw InputError("colours for print (CMYK); `tensormask-export predict` converts them");
  jpeg.out_color_space = JCS_RGB;
  jpeg_start_decompress(&jpeg);
  Picture picture = blank(jpeg.output_height, jpeg.output_width);
  while (jpeg.output_scanline < jpeg.output_height) {
    uint8_t* row = &picture.pixels[std::size_t(3) * jpeg.output_scanline * picture.width];
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  constexpr char MARK[] = "Exif\0";  // and one more zero
  int turn = 1;
  for (auto each = jpeg.marker_list; each; each = each->next)
    if (each->data_length > 6 && std::memcmp(each->data, MARK, 6) == 0)
      turn = orientation(each->data + 6, each->data_length - 6);
  jpeg_finish_decompress(&jpeg);
  return upright(picture, turn);
}

// A PNG or JPEG file, whatever its name says.
inline Picture read_picture(const std::string& path) {
  const std::vector<uint8_t> file = file_bytes("image", path);
  const bool is_png = file.size() > 8 && png_sig_cmp(file.data(), 0, 8) == 0;
  const bool is_jpeg = file.size() > 3 && file[0] == 0xFF && file[1] == 0xD8;
  try {
    if (!is_png && !is_jpeg) throw InputError("it is neither");
    return is_png ? read_png(file) : read_jpeg(file);
  } catch (const InputError& error) {
    throw bad("image", "a whole PNG or JPEG", path + " (" + error.what() + ")");
  }
}

// Numbers 0 to 255 per pixel as a PNG with a palette: black, then colours far from each other.
inline void write_numbers(const std::string& path, int height, int width,
                          const std::vector<uint8_t>& numbers) {
  uint8_t palette[256][3] = {};
  for (int number = 0; number < 256; ++number)
    for (int bit = 0; bit < 8; ++bit)  // bits 0, 1, 2, then 3, 4, 5, ... from the highest down
      palette[number][bit % 3] |= uint8_t((number >> bit & 1) << (7 - bit / 3));
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = png_uint_32(width);
  image.height = png_uint_32(height);
  image.format = PNG_FORMAT_RGB_COLORMAP;
  image.colormap_entries = 256;
  if (!png_image_write_to_file(&image, path.c_str(), 0, numbers.data(), 0, palette))
    throw InputError(path + ": cannot be written (" + image.message + ")");
}

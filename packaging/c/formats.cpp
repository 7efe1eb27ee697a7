// Status, version, archs and formats of c.h.
#include "quantal/formats.hpp"

#include <array>
#include <cstring>

#include "failure.hpp"
#include "quantal/checks.hpp"
#include "quantal/runtime/ops.hpp"

namespace {

using namespace quantal;

static_assert(QUANTAL_SHORT_BUFFER == static_cast<int>(status::short_buffer) &&
                  QUANTAL_BAD_STRIDE == static_cast<int>(status::bad_stride) &&
                  QUANTAL_UNSUPPORTED == static_cast<int>(status::unsupported) &&
                  QUANTAL_OVERLAP == static_cast<int>(status::overlap),
              "the numbers of quantal_status are those of quantal::status");

constexpr std::size_t longest_message = 1024;

char* message() noexcept {
  thread_local std::array<char, longest_message> text{};
  return text.data();
}

quantal_status give(const format_info* f, quantal_format* out, const char* function) noexcept {
  if (!out) return c::fail(QUANTAL_NULL_POINTER, function);
  if (!f) return c::fail(QUANTAL_UNKNOWN_FORMAT, function);
  const bool encodes = runtime::best_variant().find_quantizer(f->gguf_id) != nullptr;
  // Names of formats are string literals: they end in a zero.
  *out = {f->gguf_id,         f->name.data(), f->layout.elements,           f->layout.bytes,
          f->layout.row_meta, f->is_float,    f->usage == role::activation, encodes,
          f->layout.bpw()};
  return QUANTAL_OK;
}

}  // namespace

extern "C" {

const char* quantal_status_text(quantal_status s) {
  switch (s) {
    case QUANTAL_FILE_ERROR:
      return "file error";
    case QUANTAL_NOT_FOUND:
      return "not found";
    case QUANTAL_BAD_ARGUMENT:
      return "bad argument";
    case QUANTAL_OUT_OF_MEMORY:
      return "out of memory";
    default:
      if (s < QUANTAL_OK || s > QUANTAL_SHORT_BUFFER) return "unknown status";
      return to_string(static_cast<status>(s)).data();  // a literal, as above
  }
}

const char* quantal_last_error(void) { return message(); }

void quantal_set_last_error(const char* text) {
  if (!text) text = "";
  const std::size_t n = std::min(std::strlen(text), longest_message - 1);
  std::memmove(message(), text, n);
  message()[n] = '\0';
}

#define QUANTAL_TEXT_OF(x) #x
#define QUANTAL_TEXT(x) QUANTAL_TEXT_OF(x)
const char* quantal_version(void) {
  return QUANTAL_TEXT(QUANTAL_VERSION_MAJOR) "." QUANTAL_TEXT(QUANTAL_VERSION_MINOR) "." QUANTAL_TEXT(
      QUANTAL_VERSION_PATCH);
}
#undef QUANTAL_TEXT
#undef QUANTAL_TEXT_OF

int32_t quantal_version_number(void) {
  return 10000 * QUANTAL_VERSION_MAJOR + 100 * QUANTAL_VERSION_MINOR + QUANTAL_VERSION_PATCH;
}

const char* quantal_arch(void) { return runtime::best_variant().arch().data(); }

size_t quantal_arch_count(void) { return runtime::dispatcher::compiled().size(); }

const char* quantal_arch_at(size_t index) {
  const auto archs = runtime::dispatcher::compiled();
  return index < archs.size() ? archs[index].data() : nullptr;
}

bool quantal_arch_runs(const char* name) { return name && runtime::dispatcher::named(name).has_value(); }

size_t quantal_format_count(void) { return format_table.size(); }

quantal_status quantal_format_at(size_t index, quantal_format* out) {
  if (index >= format_table.size()) return c::fail(QUANTAL_NOT_FOUND, __func__, "there are fewer formats");
  return give(&format_table[index], out, __func__);
}

quantal_status quantal_format_by_id(uint32_t id, quantal_format* out) {
  return give(find_format(id), out, __func__);
}

quantal_status quantal_format_by_name(const char* name, quantal_format* out) {
  if (!name) return c::fail(QUANTAL_NULL_POINTER, __func__);
  return give(find_format(std::string_view(name)), out, __func__);
}

int64_t quantal_row_bytes(uint32_t format, int64_t cols) {
  const format_info* const f = find_format(format);
  return f && checks::dimension(cols) && cols % f->layout.elements == 0 ? f->row_bytes(cols) : 0;
}

}  // extern "C"

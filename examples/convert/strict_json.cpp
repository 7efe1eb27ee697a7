#include "strict_json.hpp"

#include <unordered_set>
#include <vector>

#include "file.hpp"
#include "impostor.hpp"
#include "text.hpp"

namespace quantal::hf {
namespace {

constexpr std::size_t max_depth = 64;

/// Walks a document without building it; stops at the first thing that a well-behaved writer does not write.
class checker {
 public:
  using number_integer_t = document::number_integer_t;
  using number_unsigned_t = document::number_unsigned_t;
  using number_float_t = document::number_float_t;
  using string_t = document::string_t;
  using binary_t = document::binary_t;

  const std::string& why() const { return why_; }

  bool null() { return true; }
  bool boolean(bool) { return true; }
  bool number_integer(number_integer_t) { return true; }
  bool number_unsigned(number_unsigned_t) { return true; }
  bool number_float(number_float_t, const string_t&) { return true; }
  bool string(string_t&) { return true; }
  bool binary(binary_t&) { return true; }
  bool start_object(std::size_t) { return enter(); }
  bool start_array(std::size_t) { return enter(); }
  bool end_object() { return leave(); }
  bool end_array() { return leave(); }
  bool key(string_t& k) {
    if (keys_.back().insert(k).second) return true;
    why_ = "duplicate key " + text::in_quotes(k);
    return false;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception&) {
    why_ = "not valid JSON at byte " + std::to_string(position);
    return false;
  }

 private:
  bool enter() {
    keys_.emplace_back();
    if (keys_.size() <= max_depth) return true;
    why_ = "nested deeper than " + std::to_string(max_depth) + " levels";
    return false;
  }
  bool leave() {
    keys_.pop_back();
    return true;
  }

  std::vector<std::unordered_set<std::string>> keys_;
  std::string why_;
};

}  // namespace

result<document> parse_json(std::string_view text, const std::string& name) {
  if (const auto what = impostor(text.substr(0, 256)); !what.empty()) return error{name + ": " + what};
  checker c;
  if (!document::sax_parse(text.begin(), text.end(), &c)) return error{name + ": " + c.why()};
  document d = document::parse(text.begin(), text.end(), nullptr, false);
  if (d.is_discarded()) return error{name + ": not valid JSON"};
  return d;
}

result<document> read_json_object(const std::filesystem::path& path, std::uint64_t max_bytes) {
  auto mapped = gguf::mapped_file::open(path);
  if (!mapped) return mapped.error();
  const auto bytes = mapped->bytes();
  if (bytes.size() > max_bytes)
    return error{path.string() + ": " + text::human_size(bytes.size()) +
                 " are more than such a file can hold"};
  auto d = parse_json({reinterpret_cast<const char*>(bytes.data()), bytes.size()}, path.string());
  if (d && !d->is_object()) return error{path.string() + ": not a JSON object"};
  return d;
}

const document* member(const document& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

}  // namespace quantal::hf

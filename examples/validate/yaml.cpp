#include "yaml.hpp"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <charconv>
#include <cmath>
#include <sstream>
#include <vector>

#include "text.hpp"

namespace quantal::validate {
namespace {

/// "?" is what the parser calls the tag of a plain scalar.
json scalar(const std::string& tag, const std::string& s) {
  if (tag != "?") return s;
  if (s == "true" || s == "True" || s == "TRUE") return true;
  if (s == "false" || s == "False" || s == "FALSE") return false;
  double number = 0;
  const auto [end, failed] = std::from_chars(s.data(), s.data() + s.size(), number);
  if (failed == std::errc{} && end == s.data() + s.size() && std::isfinite(number)) return number;
  return s;
}

/// Builds the value as the parser reports its parts; errors are the parser's exceptions.
class json_builder final : public YAML::EventHandler {
 public:
  json take() { return std::move(root_); }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    refuse_reference(mark, anchor);
    add(mark, nullptr);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { refuse_reference(mark, 1); }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    refuse_reference(mark, anchor);
    refuse_tag(mark, tag);
    if (wants_key()) return set_key(mark, value);
    add(mark, scalar(tag, value));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, json::array());
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, tag, anchor, json::object());
  }
  void OnMapEnd() override { close(); }

 private:
  struct level {
    json value;
    std::string key;
    bool has_key = false;
  };

  [[noreturn]] static void refuse(const YAML::Mark& mark, const std::string& why) {
    throw YAML::ParserException(mark, why);
  }
  /// Aliases could make a small file a huge document.
  static void refuse_reference(const YAML::Mark& mark, YAML::anchor_t anchor) {
    if (anchor != 0) refuse(mark, "anchors and aliases are not supported");
  }
  static void refuse_tag(const YAML::Mark& mark, const std::string& tag) {
    if (!tag.empty() && tag != "?" && tag != "!") refuse(mark, "tags are not supported");
  }
  bool wants_key() const { return !open_.empty() && open_.back().value.is_object() && !open_.back().has_key; }
  void set_key(const YAML::Mark& mark, const std::string& key) {
    auto& top = open_.back();
    if (top.value.contains(key)) refuse(mark, "key '" + text::printable(key) + "' came before");
    top.key = key, top.has_key = true;
  }
  void add(const YAML::Mark& mark, json value) {
    if (open_.empty()) {
      root_ = std::move(value);
      return;
    }
    if (wants_key()) refuse(mark, "a key is no scalar");
    put(std::move(value));
  }
  void put(json value) {
    auto& top = open_.back();
    if (top.value.is_array()) return top.value.push_back(std::move(value));
    top.value[top.key] = std::move(value);
    top.has_key = false;
  }
  void open(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor, json empty) {
    refuse_reference(mark, anchor);
    refuse_tag(mark, tag);
    if (wants_key()) refuse(mark, "a key is no scalar");
    open_.push_back({std::move(empty), {}, false});
  }
  void close() {
    json done = std::move(open_.back().value);
    open_.pop_back();
    if (open_.empty())
      root_ = std::move(done);
    else
      put(std::move(done));
  }

  json root_;
  std::vector<level> open_;
};

}  // namespace

result<json> parse_yaml(std::string_view text, const std::string& origin) {
  std::istringstream in{std::string(text)};
  json_builder builder;
  try {
    YAML::Parser parser(in);
    if (!parser.HandleNextDocument(builder)) return error{origin + ": holds no YAML document"};
    json_builder behind;
    if (parser.HandleNextDocument(behind)) return error{origin + ": holds more than one YAML document"};
  } catch (const YAML::Exception& e) {
    return error{origin + ": not valid YAML: line " + std::to_string(e.mark.line + 1) + ": " +
                 text::printable(e.msg)};
  }
  return builder.take();
}

}  // namespace quantal::validate

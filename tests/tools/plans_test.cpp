// Every plan of tests/data/plans: what llama.cpp chooses for models of many architectures, tensor by tensor.
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <sstream>

#include "support/paths.hpp"
#include "synthetic.hpp"
#include "types.hpp"

namespace quantal::plan {
namespace {

/// Tensors that one line of the file describes.
struct group {
  std::vector<std::size_t> tensors;
  bool keep = false;
};

/// Types by the key of their group: "0-31 attn_v.weight".
struct expected_plan {
  std::string type, rest;
  std::map<std::string, std::string> types, with_imatrix;
};

struct expected_model {
  std::string name;
  gguf::metadata meta;
  std::vector<gguf::tensor_info> tensors;
  std::map<std::string, group> groups;
  std::vector<expected_plan> plans;
};

/// "0-47%4=3": first to last, by their remainder.
std::vector<int> block_list(const std::string& s) {
  int first = 0, last = 0, modulus = 1, remainder = 0;
  char skip = 0;
  std::istringstream in(s);
  in >> first >> skip >> last;
  if (in >> skip) in >> modulus >> skip >> remainder;
  std::vector<int> out;
  for (int i = first; i <= last; ++i)
    if (modulus == 1 || i % modulus == remainder) out.push_back(i);
  return out;
}

void add_tensors(expected_model& m, std::istringstream& line) {
  std::string where, name, dims, keep;
  line >> where >> name >> dims >> keep;
  std::array<std::int64_t, 4> ne{1, 1, 1, 1};
  std::istringstream sizes(dims);
  std::size_t n = 0;
  for (std::string d; std::getline(sizes, d, 'x');) ne.at(n++) = std::stoll(d);
  const bool is_f32 =
      n == 1 || name.find("gate_inp") != std::string::npos || name.find("conv1d") != std::string::npos;
  group g;
  g.keep = keep == "keep";
  const auto add = [&](const std::string& full) {
    g.tensors.push_back(m.tensors.size());
    m.tensors.push_back(test::tensor(full, is_f32 ? f32::gguf_id : bf16::gguf_id, ne));
  };
  const auto colon = where.find(':');
  const std::string prefix = colon == std::string::npos ? "" : where.substr(0, colon);
  if (where == "-")
    add(name);
  else
    for (const int i : block_list(where.substr(colon == std::string::npos ? 0 : colon + 1)))
      add(prefix + "blk." + std::to_string(i) + "." + name);
  m.groups[where + " " + name] = std::move(g);
}

void add_key(expected_model& m, std::istringstream& line) {
  std::string key, value;
  line >> key >> std::ws;
  std::getline(line, value);
  std::vector<std::int32_t> numbers;
  std::istringstream in(value);
  for (std::int32_t n = 0; in >> n;) numbers.push_back(n);
  if (numbers.empty())
    m.meta.set(key, value);
  else if (numbers.size() == 1)
    m.meta.set(key, numbers.front());
  else
    m.meta.set(key, numbers);
}

std::vector<expected_model> read_plans() {
  std::ifstream file(test::data_file("/plans/llama_cpp.txt"));
  std::vector<expected_model> models;
  for (std::string text; std::getline(file, text);) {
    std::istringstream line(text);
    std::string word, where, name, types;
    line >> word;
    if (word.empty() || word == "#") continue;
    if (word == "model") line >> models.emplace_back().name;
    if (word == "kv") add_key(models.back(), line);
    if (word == "tensor") add_tensors(models.back(), line);
    if (word == "plan") line >> models.back().plans.emplace_back().type;
    if (word == "rest") {
      line >> std::ws;
      std::getline(line, models.back().plans.back().rest);
    }
    if (word == "model" || word == "kv" || word == "tensor" || word == "plan" || word == "rest") continue;
    const bool data = word == "imatrix";
    if (data) line >> word;
    line >> name >> std::ws;
    std::getline(line, types);
    auto& p = models.back().plans.back();
    (data ? p.with_imatrix : p.types)[word + " " + name] = types;
  }
  return models;
}

/// "q6_K*2 q4_K" for three tensors.
std::vector<std::string> types_of(const std::string& text, std::size_t tensors) {
  std::vector<std::string> out;
  std::istringstream in(text);
  for (std::string word; in >> word;) {
    const auto star = word.find('*');
    const std::size_t n = star == std::string::npos ? 1 : std::stoul(word.substr(star + 1));
    out.insert(out.end(), n, word.substr(0, star));
  }
  if (out.size() == 1) out.resize(tensors, out.front());
  return out;
}

/// The first tensor that differs, or "".
std::string difference(const expected_model& m, const expected_plan& p, bool data) {
  type_options o;
  o.type = find_file_type(p.type);
  if (!o.type) return "no such type";
  const auto chosen = choose_types(m.tensors, o, traits_of(m.meta, m.tensors), data);
  if (!chosen) return chosen.error().message;
  for (const auto& [key, g] : m.groups) {
    std::string types = g.keep ? "keep" : p.rest;
    if (const auto it = p.types.find(key); it != p.types.end()) types = it->second;
    if (const auto it = p.with_imatrix.find(key); data && it != p.with_imatrix.end()) types = it->second;
    const auto want = types_of(types, g.tensors.size());
    if (want.size() != g.tensors.size()) return key + ": " + std::to_string(want.size()) + " types";
    for (std::size_t i = 0; i < want.size(); ++i) {
      const auto& c = (*chosen)[g.tensors[i]];
      const auto got = c.copy ? "keep" : gguf::type_name(c.type);
      if (got != want[i]) return m.tensors[g.tensors[i]].name + ": " + got + " instead of " + want[i];
    }
  }
  return {};
}

TEST(plans, equal_those_of_llama_cpp_on_every_architecture) {
  const auto models = read_plans();
  EXPECT_GE(models.size(), 50u);
  std::size_t compared = 0;
  for (const auto& m : models) {
    EXPECT_GE(m.plans.size(), 34u) << m.name;
    for (const auto& p : m.plans)
      for (const bool data : {false, true}) {
        EXPECT_EQ(difference(m, p, data), "") << m.name << " " << p.type << (data ? " with an imatrix" : "");
        compared += m.tensors.size();
      }
  }
  EXPECT_GE(compared, 1'000'000u);
}

}  // namespace
}  // namespace quantal::plan

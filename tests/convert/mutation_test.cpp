// Checkpoints of every coding with one thing wrong in what describes them: a refusal that names the folder and the thing, or the
// output of the whole checkpoint, and never another one. QUANTAL_MUTATIONS says how many are tried (default: 12 of a coding).
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "converting.hpp"
#include "family_checkpoint.hpp"
#include "quantized_checkpoint.hpp"
#include "support/paths.hpp"

namespace quantal::test {
namespace {

int mutations() {
  const char* said = std::getenv("QUANTAL_MUTATIONS");
  return said ? std::max(1, std::atoi(said)) : 12;
}

/// One change, and words of which a refusal must have one.
struct mutation {
  std::string what;
  std::vector<std::string> names;
};

/// Changes descriptions, not numbers: what is stored stays, or is cut off.
class mutator {
 public:
  explicit mutator(unsigned seed) : random_(seed) {}

  mutation apply(fake_checkpoint& c) {
    if (below(4) == 0 && c.config.contains("quantization_config")) return change_config(c);
    return change_tensor(c);
  }

 private:
  std::size_t below(std::size_t n) { return std::uniform_int_distribution<std::size_t>(0, n - 1)(random_); }

  /// One of the tensors that make up quantized weights, if there are any.
  std::size_t pick(const fake_checkpoint& c) {
    for (int i = 0; i < 50; ++i) {
      const auto at = below(c.tensors.size());
      const auto& name = c.tensors[at].name;
      // Scales of inputs that are missing or wrong are left out, which a note says.
      if (name.find("proj") != std::string::npos && name.find(".input_") == std::string::npos) return at;
    }
    return below(c.tensors.size());
  }

  static std::size_t bits(const std::string& dtype) {
    return dtype == "F4"           ? 4
           : dtype.ends_with("64") ? 64
           : dtype.ends_with("32") ? 32
           : dtype.ends_with("16") ? 16
                                   : 8;
  }
  static void fill(raw_tensor& t) {
    std::size_t n = bits(t.dtype);
    for (const auto d : t.shape) n *= static_cast<std::size_t>(d);
    t.bytes.resize((n + 7) / 8, '\1');
  }

  mutation change_tensor(fake_checkpoint& c) {
    const auto at = pick(c);
    auto& t = c.tensors[at];
    const std::string name = t.name;
    const std::vector<std::string> names{name, module_of(name)};
    switch (below(7)) {
      case 0:
        c.tensors.erase(c.tensors.begin() + static_cast<std::ptrdiff_t>(at));
        return {"without " + name, names};
      case 1: {
        if (t.shape.empty()) t.shape = {2};
        auto& d = t.shape[below(t.shape.size())];
        d = below(2) ? d + 1 : d / 2;
        fill(t);
        return {"another size of " + name, names};
      }
      case 2:
        t.shape.push_back(1);
        return {"one more dimension of " + name, names};
      case 3: {
        if (t.shape.size() < 2 || t.shape[0] == t.shape[1]) return change_tensor(c);
        std::swap(t.shape[0], t.shape[1]);
        return {"swapped dimensions of " + name, names};
      }
      case 4: {
        static const std::vector<std::string> types{"F64",     "I64", "BOOL", "I16",
                                                    "F8_E5M2", "U32", "F4",   "I9"};
        t.dtype = types[below(types.size())];
        fill(t);
        return {t.dtype + " for " + name, names};
      }
      case 5:
        t.name += "_x";
        return {"another name of " + name, {name, t.name, module_of(name)}};
      default: {
        auto copy = t;
        copy.name = module_of(name) + (below(2) ? ".weight_scale_2x" : ".qweight_old");
        c.tensors.push_back(copy);
        return {"a tensor too many: " + copy.name, {copy.name}};
      }
    }
  }

  static std::string module_of(const std::string& name) { return name.substr(0, name.rfind('.')); }

  /// A value of the quantization's description, anywhere in it.
  mutation change_config(fake_checkpoint& c) {
    std::vector<std::pair<json*, std::string>> places;
    collect(c.config["quantization_config"], places);
    auto& [parent, key] = places[below(places.size())];
    const std::string was = (*parent)[key].dump();
    switch (below(5)) {
      case 0:
        parent->erase(key);
        return {"without " + key, {"config"}};
      case 1:
        (*parent)[key] = 3;
        break;
      case 2:
        (*parent)[key] = "nonsense";
        break;
      case 3:
        (*parent)[key] = json::array({-1, "x"});
        break;
      default:
        (*parent)[key] =
            (*parent)[key].is_number_integer() ? json((*parent)[key].get<std::int64_t>() * 2) : json(nullptr);
    }
    return {key + " was " + was + ", is " + (*parent)[key].dump(), {"config", module_of("model.layers")}};
  }
  static void collect(json& object, std::vector<std::pair<json*, std::string>>& out) {
    for (auto& [key, value] : object.items()) {
      out.emplace_back(&object, key);
      if (value.is_object()) collect(value, out);
    }
  }

  std::mt19937 random_;
};

class Mutations : public converting {
 protected:
  void check(const fake_checkpoint& good, const std::string& type, unsigned seed) {
    const auto whole = convert(good, "whole.gguf", type);
    ASSERT_TRUE(whole) << whole.error().message;
    const auto want = read_file(dir / "whole.gguf");
    mutator change(seed);
    int refused = 0;
    for (int i = 0; i < mutations(); ++i) {
      auto c = good;
      const auto m = change.apply(c);
      std::filesystem::remove(dir / "out.gguf");
      const auto done = convert(c, "out.gguf", type);
      if (done) {
        EXPECT_TRUE(read_file(dir / "out.gguf") == want) << "another output: " << m.what;
        continue;
      }
      ++refused;
      const auto& said = done.error().message;
      EXPECT_FALSE(std::filesystem::exists(dir / "out.gguf")) << m.what;
      EXPECT_NE(said.find((dir / "hf").string()), std::string::npos) << m.what << ": " << said;
      bool named = false;
      for (const auto& name : m.names) named |= said.find(name) != std::string::npos;
      EXPECT_TRUE(named) << m.what << ": " << said;
    }
    EXPECT_GT(refused, mutations() / 3);
  }
};

TEST_F(Mutations, OfEveryCoding) {
  const auto model = gguf::reader::open(data_file("/fixtures/fixture-v3-mainline-bf16.gguf"));
  ASSERT_TRUE(model) << model.error().message;
  const auto base = checkpoint_maker(*model).make();
  for (int how = 0; how <= static_cast<int>(stored_as::fp8_powers); ++how) {
    SCOPED_TRACE(how);
    const quantized_checkpoint q(base, static_cast<stored_as>(how));
    check(q.stored, how % 2 ? "auto" : "", static_cast<unsigned>(how) + 1);
  }
}

TEST_F(Mutations, OfGptOss) { check(gpt_oss(true), "auto", 77); }

}  // namespace
}  // namespace quantal::test

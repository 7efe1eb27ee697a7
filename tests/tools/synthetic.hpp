// Synthetic deepseek2 tensor lists and GGUF files.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "quantal/gguf/writer.hpp"

namespace quantal::test {

inline gguf::tensor_info tensor(std::string name, std::uint32_t type, std::array<std::int64_t, 4> ne) {
  gguf::tensor_info t{.name = std::move(name), .type = type, .ne = ne};
  t.n_dims = 4;
  while (t.n_dims > 1 && t.ne[static_cast<std::size_t>(t.n_dims - 1)] == 1) --t.n_dims;
  t.nbytes = gguf::tensor_bytes(type, ne).value_or(0);
  return t;
}

/// Sizes of a synthetic model; every column count is a multiple of 256 except those of attn_k_b (128).
struct shape {
  std::int64_t blocks = 3, embedding = 256, hidden = 256, heads = 2, latent = 256, experts = 2,
               vocabulary = 32;
  bool lite = false, three_dimensional = true, tied = false;
  std::int64_t next_token = 0;  ///< of the blocks, the last ones for next-token prediction
};

inline std::vector<gguf::tensor_info> deepseek2(const shape& s) {
  const std::uint32_t w = f32::gguf_id;
  const std::int64_t e = s.embedding;
  std::vector<gguf::tensor_info> out;
  const auto add = [&](std::string name, std::array<std::int64_t, 4> ne) {
    out.push_back(tensor(std::move(name), w, ne));
  };
  add("token_embd.weight", {e, s.vocabulary, 1, 1});
  add("output_norm.weight", {e, 1, 1, 1});
  if (!s.tied) add("output.weight", {e, s.vocabulary, 1, 1});
  for (std::int64_t i = 0; i < s.blocks; ++i) {
    const std::string b = "blk." + std::to_string(i) + ".";
    add(b + "attn_norm.weight", {e, 1, 1, 1});
    if (s.lite)
      add(b + "attn_q.weight", {e, s.heads * 192, 1, 1});
    else
      add(b + "attn_q_a.weight", {e, 256, 1, 1}), add(b + "attn_q_b.weight", {256, s.heads * 192, 1, 1});
    add(b + "attn_kv_a_mqa.weight", {e, s.latent + 64, 1, 1});
    add(b + "attn_kv_a_norm.weight", {s.latent, 1, 1, 1});
    if (s.three_dimensional) {
      add(b + "attn_k_b.weight", {128, s.latent, s.heads, 1});
      add(b + "attn_v_b.weight", {s.latent, 128, s.heads, 1});
    } else {
      add(b + "attn_kv_b.weight", {s.latent, s.heads * 256, 1, 1});
      add(b + "attn_k_b.weight", {128, s.latent * s.heads, 1, 1});
      add(b + "attn_v_b.weight", {s.latent, 128 * s.heads, 1, 1});
    }
    add(b + "attn_output.weight", {s.heads * 128, e, 1, 1});
    add(b + "ffn_norm.weight", {e, 1, 1, 1});
    if (i == 0) {
      add(b + "ffn_gate.weight", {e, s.hidden, 1, 1});
      add(b + "ffn_up.weight", {e, s.hidden, 1, 1});
      add(b + "ffn_down.weight", {s.hidden, e, 1, 1});
      continue;
    }
    add(b + "ffn_gate_inp.weight", {e, s.experts, 1, 1});
    add(b + "exp_probs_b.bias", {s.experts, 1, 1, 1});
    add(b + "ffn_gate_exps.weight", {e, s.hidden, s.experts, 1});
    add(b + "ffn_up_exps.weight", {e, s.hidden, s.experts, 1});
    add(b + "ffn_down_exps.weight", {s.hidden, e, s.experts, 1});
    add(b + "ffn_gate_shexp.weight", {e, s.hidden, 1, 1});
    add(b + "ffn_up_shexp.weight", {e, s.hidden, 1, 1});
    add(b + "ffn_down_shexp.weight", {s.hidden, e, 1, 1});
  }
  return out;
}

/// A folder that goes away with the test.
class temporary_folder {
 public:
  temporary_folder() {
    std::string pattern = (std::filesystem::path(::testing::TempDir()) / "quantal_XXXXXX").string();
    if (!::mkdtemp(pattern.data())) ADD_FAILURE() << "no temporary folder";
    path_ = pattern;
  }
  temporary_folder(const temporary_folder&) = delete;
  temporary_folder& operator=(const temporary_folder&) = delete;
  ~temporary_folder() { std::filesystem::remove_all(path_); }
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }
  /// Names of everything inside.
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& e : std::filesystem::directory_iterator(path_)) out.push_back(e.path().filename());
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  std::filesystem::path path_;
};

inline gguf::metadata deepseek2_metadata(const shape& s) {
  gguf::metadata m;
  m.set("general.architecture", std::string("deepseek2"));
  m.set("general.name", std::string("synthetic"));
  m.set("general.file_type", std::uint32_t{0});
  m.set("deepseek2.block_count", static_cast<std::uint32_t>(s.blocks));
  m.set("deepseek2.attention.head_count", static_cast<std::uint32_t>(s.heads));
  m.set("deepseek2.expert_count", static_cast<std::uint32_t>(s.experts));
  if (s.next_token > 0) m.set("deepseek2.nextn_predict_layers", static_cast<std::uint32_t>(s.next_token));
  return m;
}

/// Writes float32 tensors with normally distributed values; `edit` may change the values of a tensor.
inline void write_model(const std::filesystem::path& path, const gguf::metadata& meta,
                        const std::vector<gguf::tensor_info>& tensors,
                        const std::function<void(const gguf::tensor_info&, std::vector<float>&)>& edit = {}) {
  auto w = gguf::writer::create(path, meta, tensors);
  ASSERT_TRUE(w) << w.error().message;
  std::mt19937 random(1);
  for (const auto& t : tensors) {
    std::vector<float> v(static_cast<std::size_t>(t.elements()));
    for (auto& x : v) x = static_cast<float>(static_cast<double>(random()) / 2147483648.0 - 1.0) * 0.05f;
    if (edit) edit(t, v);
    const auto r = w->append(std::as_bytes(std::span(v)));
    ASSERT_TRUE(r) << r.error().message;
  }
  const auto f = w->finish();
  ASSERT_TRUE(f) << f.error().message;
}

}  // namespace quantal::test

// A family of models as tables: the keys of its config.json that a GGUF has too, and its tensors under both
// names. What no table can say is a function of the family's own file.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config.hpp"
#include "key_reader.hpp"
#include "layout.hpp"
#include "quantal/gguf/metadata.hpp"
#include "quantization.hpp"

namespace quantal::hf {

/// Beyond these a config.json is damaged.
inline constexpr std::int64_t largest_size = 1 << 20, longest_context = std::int64_t{1} << 31;

/// Sizes that shapes are made of.
enum class size : std::uint8_t {
  one,
  layers,
  vocabulary,
  embedding,
  hidden,       ///< of blocks without experts
  heads,        ///< of queries
  kv_heads,     ///< of keys and values
  head,         ///< width of a head
  queries,      ///< heads * head
  key_values,   ///< kv_heads * head
  head_values,  ///< width of all heads before the output projection
  experts,
  experts_used,
  expert_hidden,
  expert_gate_up,  ///< gate and up of an expert in one matrix
  shared_hidden,   ///< of the experts that every token passes
  q_rank,          ///< latent attention: width of the query's latent
  kv_rank,         ///< width of the latent that keys and values share
  kv_latent,       ///< with the rotary part of the keys behind it
  kv_up,           ///< rows that keys and values are made of
  count
};

class size_table {
 public:
  std::int64_t operator[](size s) const noexcept { return values_[static_cast<std::size_t>(s)]; }
  std::int64_t& operator[](size s) noexcept { return values_[static_cast<std::size_t>(s)]; }

 private:
  std::array<std::int64_t, static_cast<std::size_t>(size::count)> values_{1};
};

/// What a model has or a block is; a row of a table may need some of these.
namespace trait {
enum bits : std::uint32_t {
  none = 0,
  dense = 1 << 0,   ///< this block has no experts
  sparse = 1 << 1,  ///< this block has experts
  untied = 1 << 2,  ///< the output matrix is one of its own
  attention_bias = 1 << 3,
  mlp_bias = 1 << 4,
  shared_experts = 1 << 5,
  routing_bias = 1 << 6,     ///< e_score_correction_bias
  query_latent = 1 << 7,     ///< queries come out of a latent
  direct_query = 1 << 8,     ///< or out of one matrix
  joined_up = 1 << 9,        ///< the layout keeps attn_kv_b
  packed_experts = 1 << 10,  ///< experts are blocks and scales; else they are transposed floats
  plain_experts = 1 << 11,
  rope_factors = 1 << 12,  ///< rotary frequencies are divided one by one
};
}  // namespace trait

/// How a GGUF tensor comes out of stored matrices.
enum class assembly : std::uint8_t {
  matrix,        ///< one matrix, row by row; stored in three dimensions where it has slices
  vector,        ///< vectors, as f32
  stack,         ///< one matrix per expert, a slice each
  transposed,    ///< one matrix per slice, whose columns are the rows here
  keys,          ///< attn_k_b: per head, the transpose of the first rows of kv_b_proj
  values,        ///< attn_v_b: per head, the remaining rows of kv_b_proj
  scales,        ///< what the encoded parts are multiplied by, one f32 each
  input_scales,  ///< what their inputs are divided by, one f32 each
  computed,      ///< nothing stored: rotary factors
};

/// Which of the stored rows stands where; of a vector, which element.
enum class order : std::uint8_t {
  same,
  rotary,  ///< pairs that turn together are halves of a head in the checkpoint and neighbours in the GGUF
  even,
  odd,
  first_half,  ///< of the rows of each slice
  second_half,
};

/// Half of what is stored is another tensor.
constexpr bool is_half(order taken) noexcept { return taken != order::same && taken != order::rotary; }

/// A tensor under both names. '#' stands for the number of a block, '*' for that of an expert. Stored names
/// follow the prefix of the model's body, or are `head_name`.
struct tensor_row {
  std::string_view out, stored;
  size rows, cols;  ///< of a stored part
  std::uint32_t needs = trait::none;
  assembly how = assembly::matrix;
  order taken = order::same;
  bool as_f32 = false;      ///< a matrix that is too small to round
  bool plus_one = false;    ///< the checkpoint stores it less one
  size slices = size::one;  ///< of a stored part
};
/// In place of a stored name: the output matrix.
inline constexpr std::string_view head_name = "";

/// A number of config.json with its place among sizes and keys.
struct key_row {
  const char* config;
  const char* gguf;  ///< without the architecture before it; null: only shapes need it
  size to = size::one;
  std::optional<std::int64_t> otherwise =
      std::nullopt;            ///< if config.json lacks it; without: it must be there
  const char* also = nullptr;  ///< another name in config.json
};

struct family;

/// A model as its config.json says, checked.
struct model_config {
  const family* kind = nullptr;
  size_table sizes;
  std::uint32_t traits = trait::none;  ///< of the model; those of blocks follow from `dense_layers`
  std::int64_t dense_layers = 0;       ///< leading blocks without experts
  gguf::metadata keys;                 ///< of the architecture
  std::vector<float> rope_factors;     ///< where traits say so
  mla::config hyper{};                 ///< latent attention only
  mla::layout layout = mla::layout::heads;

  quantization quantized;
  /// Mistral's own layout: params.json and names without a prefix.
  bool native = false;
  /// The checkpoint holds more than a language model (a vision tower, say), which is left out.
  bool wrapped = false;
  /// Attention of the checkpoint is sparse from this many tokens on; 0: never. The GGUF's is dense.
  std::int64_t sparse_from = 0;
  /// GLM: further end tokens are the end of a turn and of a message.
  bool is_glm = false;
  bool tied_embeddings = false;
  /// A wrapper and its text part differ in that: the matrix is tied if none is stored.
  bool ties_disagree = false;
  double temperature = 0;  ///< of attention, latent attention only; 0: none
  /// Special tokens by number; tokenizer files may say more.
  std::optional<std::int64_t> bos, eos, pad, eot, eom;
  /// What was ignored and why, for the user.
  std::vector<std::string> notices;

  bool has(std::uint32_t needed) const noexcept { return (traits & needed) == needed; }
  void set(const char* key, gguf::value v);
  void set_integer(const char* key, std::int64_t v) { set(key, static_cast<std::uint32_t>(v)); }
  void set_number(const char* key, double v) { set(key, static_cast<float>(v)); }
};

struct family {
  std::string_view class_name, model_type;  ///< in config.json
  std::string_view architecture;            ///< in the GGUF
  std::span<const key_row> keys;
  std::span<const tensor_row> tensors;
  /// Reads what the keys do not say, after them.
  void (*read_rest)(key_reader&, model_config&);
  bool ties_embeddings = false;  ///< where config.json does not say
  double epsilon = 0;            ///< likewise; 0: it must say
  bool has_temperature = false;  ///< queries grow with their position
};

/// Each in the file of its name.
std::span<const family> deepseek_families();
std::span<const family> llama_families();
std::span<const family> qwen_families();
std::span<const family> gemma_families();
std::span<const family> gpt_oss_families();
/// The family of this class in Mistral's own layout; null if there is none.
const family* mistral_family(std::string_view class_name);

}  // namespace quantal::hf

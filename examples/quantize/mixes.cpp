#include "mixes.hpp"

#include <algorithm>
#include <charconv>
#include <span>

namespace quantal::plan {
namespace {

// Facts about a tensor and its model. A rule names those that must all hold. For a tensor that is number i of n, with
// integer division; i and n are what mixer::place says.
constexpr std::uint32_t always = 0;
constexpr std::uint32_t more = 1u << 0;             // i < n/8, i >= 7n/8, or (i - n/8) mod 3 == 2
constexpr std::uint32_t first_eighth = 1u << 1;     // i < n/8
constexpr std::uint32_t first_sixteenth = 1u << 2;  // i < n/16
constexpr std::uint32_t middle = 1u << 3;           // n/8 <= i < 7n/8
constexpr std::uint32_t first = 1u << 17;           // i == 0
constexpr std::uint32_t first_two = 1u << 4;        // i < 2
constexpr std::uint32_t first_four = 1u << 5;       // i < 4
constexpr std::uint32_t counted_eighth = 1u << 6;   // fewer than n/8 tensors of the class came before
constexpr std::uint32_t odd_width = 1u << 7;        // the columns are no multiple of 256
constexpr std::uint32_t stacked = 1u << 8;          // more than one slice
constexpr std::uint32_t gqa4 = 1u << 9;             // at least 4 query heads share a KV head
constexpr std::uint32_t experts4 = 1u << 10;        // at least 4 experts
constexpr std::uint32_t experts8 = 1u << 11;        // at least 8
constexpr std::uint32_t mixtral = 1u << 12;         // exactly 8
constexpr std::uint32_t falcon = 1u << 13;
constexpr std::uint32_t size_70b = 1u << 14;
constexpr std::uint32_t no_imatrix = 1u << 15;
constexpr std::uint32_t imatrix = 1u << 16;

/// Tensors of these classes get `type` (the base if empty) in these file types if the facts hold.
struct mix_rule {
  std::string_view file_types;  ///< names separated by spaces, or "*" for all
  tensor_class tensors;
  std::uint32_t facts;
  std::string_view type;
};

using enum tensor_class;

/// What LOW_BIT among the file types of a rule stands for.
constexpr std::string_view low_bit = "IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M IQ2_KS IQ2_KT";

/// llama.cpp. In each class the first rule that applies decides.
constexpr auto llama_cpp_rules = std::to_array<mix_rule>({
    {"Q8_0", output, always, ""},
    {"*", output, falcon, "q8_0"},
    {"*", output, odd_width, "q8_0"},
    {"LOW_BIT IQ3_XXS", output, always, "q5_K"},
    {"*", output, always, "q6_K"},

    {"IQ2_S IQ2_M IQ3_XXS", token_embd, always, "iq3_s"},
    {"LOW_BIT", token_embd, always, "q2_K"},
    {"TQ1_0 TQ2_0 Q2_0", token_embd, always, "q4_K"},

    {"LOW_BIT", attn_v, mixtral, "q4_K"},
    {"*", attn_v, mixtral, "q8_0"},
    {"Q2_K Q3_K_S Q3_K_M Q3_K_L Q4_K_S IQ3_M", attn_v, size_70b, "q5_K"},
    {"Q2_K_S IQ3_XXS IQ3_XS IQ3_S", attn_v, size_70b | gqa4, "q5_K"},
    {"LOW_BIT Q2_K Q2_K_S IQ3_XXS IQ3_XS IQ3_S", attn_v, gqa4, "q4_K"},
    {"LOW_BIT", attn_v, experts4, "q4_K"},
    {"IQ2_S IQ2_M", attn_v, always, "iq3_s"},
    {"LOW_BIT", attn_v, always, "q2_K"},
    {"Q2_K", attn_v, always, "q3_K"},
    {"IQ3_XXS", attn_v, no_imatrix, "iq3_s"},
    {"IQ3_M", attn_v, always, "q4_K"},
    {"Q3_K_M", attn_v, first_two, "q5_K"},
    {"Q3_K_M", attn_v, always, "q4_K"},
    {"Q3_K_L", attn_v, always, "q5_K"},
    {"IQ4_NL IQ4_XS", attn_v, gqa4, "q5_K"},
    {"Q4_K_S", attn_v, first_four, "q5_K"},
    {"Q4_K_M Q5_K_M", attn_v, more, "q6_K"},
    {"Q4_K_M", attn_v, size_70b, "q5_K"},

    {"LOW_BIT", attn_k, mixtral, "q4_K"},
    {"*", attn_k, mixtral, "q8_0"},
    {"IQ3_XS", attn_k, always, "iq3_xxs"},
    {"IQ3_XXS", attn_k, always, "iq2_s"},

    {"IQ3_XS", attn_q, always, "iq3_xxs"},
    {"IQ3_XXS", attn_q, always, "iq2_s"},

    {"LOW_BIT", attn_output, mixtral, "q5_K"},
    {"IQ2_S IQ2_M", attn_output, always, "iq3_s"},
    {"IQ1_S IQ1_M", attn_output, always, "iq2_xxs"},
    {"Q3_K_L", attn_output, falcon, "q4_K"},
    {"Q2_K Q3_K_S Q3_K_M Q4_K_S Q4_K_M IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS", attn_output, falcon, ""},
    {"Q2_K Q3_K_S Q3_K_M Q4_K_S Q4_K_M IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS", attn_output, mixtral,
     "q5_K"},
    {"Q3_K_L", attn_output, mixtral, ""},
    {"Q2_K", attn_output, always, "q3_K"},
    {"IQ3_XXS", attn_output, always, "iq3_s"},
    {"Q3_K_M IQ3_M", attn_output, always, "q4_K"},
    {"Q3_K_L", attn_output, always, "q5_K"},

    {"IQ2_S IQ2_M", ffn_down, counted_eighth, "iq3_s"},
    {"LOW_BIT", ffn_down, counted_eighth, "q2_K"},
    {"Q2_K", ffn_down, always, "q3_K"},
    {"Q2_K_S IQ3_M", ffn_down, first_eighth, "q4_K"},
    {"IQ3_M", ffn_down, mixtral | more, "q4_K"},
    {"IQ3_XXS", ffn_down, no_imatrix | first_eighth, "q4_K"},
    {"IQ3_XXS", ffn_down, no_imatrix, "q3_K"},
    {"Q3_K_M", ffn_down, first_sixteenth, "q5_K"},
    {"Q3_K_M", ffn_down, falcon | more, "q4_K"},
    {"Q3_K_M", ffn_down, falcon, ""},
    {"Q3_K_M", ffn_down, always, "q4_K"},
    {"Q3_K_L", ffn_down, falcon, "q4_K"},
    {"Q3_K_L", ffn_down, always, "q5_K"},
    {"IQ4_NL IQ4_XS", ffn_down, no_imatrix | first_eighth, "q5_K"},
    {"Q4_0", ffn_down, imatrix | first_eighth, "q4_1"},
    {"Q5_0", ffn_down, imatrix | first_eighth, "q5_1"},
    {"Q4_K_S", ffn_down, falcon, ""},
    {"Q4_K_S", ffn_down, first_eighth, "q5_K"},
    {"Q4_K_M", ffn_down, falcon | first_sixteenth, "q6_K"},
    {"Q4_K_M", ffn_down, falcon | more, "q5_K"},
    {"Q4_K_M", ffn_down, falcon, ""},
    {"Q4_K_M Q5_K_M", ffn_down, more, "q6_K"},

    {"IQ3_XS", ffn_gate, middle, "iq3_xxs"},
    {"IQ3_XS", ffn_up, middle, "iq3_xxs"},
});

/// MXFP4_MOE: experts and other tensors of several slices get the base type, whatever their class.
constexpr auto mxfp4_moe_rules = std::to_array<mix_rule>({
    {"MXFP4_MOE", output, always, "q8_0"},
    {"MXFP4_MOE", any, stacked, ""},
    {"MXFP4_MOE", any, always, "q8_0"},
});

/// ik_llama.cpp (for deepseek2: quantize.md section 4).
constexpr auto ik_rules = std::to_array<mix_rule>({
    {"Q8_0", output, always, ""},
    {"*", output, falcon, "q8_0"},
    {"*", output, odd_width, "q8_0"},
    {"IQ6_K", output, always, ""},
    {"LOW_BIT IQ3_XXS IQ3_K IQ3_KS IQ2_K IQ2_KL IQ1_KT IQ3_KT", output, always, "q5_K"},
    {"*", output, always, "q6_K"},

    {"IQ2_S IQ2_M IQ3_XXS IQ3_KT", token_embd, always, "iq3_s"},
    {"IQ1_S IQ1_M IQ2_XXS IQ2_XS", token_embd, always, "q2_K"},

    {"LOW_BIT", attn_v, gqa4, "iq4_k"},
    {"LOW_BIT", attn_v, experts4, "iq4_k"},
    {"IQ2_S IQ2_M", attn_v, always, "iq3_s"},
    {"LOW_BIT", attn_v, always, "q2_K"},
    {"*", attn_v, experts4, "q8_0"},
    {"Q3_K_S Q3_K_M Q3_K_L Q4_K_S Q4_K_M", attn_v, size_70b, "q5_K"},
    {"IQ3_K", attn_v, size_70b, "iq5_k"},
    {"*", attn_v, size_70b, ""},
    {"Q2_K Q2_K_S Q3_K_S IQ3_XXS", attn_v, gqa4, "q4_K"},
    {"IQ3_XS IQ3_S IQ2_K IQ3_K IQ3_KT", attn_v, gqa4, "iq4_k"},
    {"IQ3_KS IQ2_KL", attn_v, gqa4, "iq4_ks"},
    {"IQ3_M IQ4_NL IQ4_XS IQ4_K IQ4_KS IQ4_KSS IQ4_KT", attn_v, gqa4, "iq5_k"},
    {"Q2_K", attn_v, always, "q3_K"},
    {"IQ2_K IQ3_KT", attn_v, always, "iq3_k"},
    {"IQ3_XXS", attn_v, no_imatrix, "iq3_s"},
    {"IQ3_M IQ4_KT", attn_v, always, "iq4_k"},
    {"Q3_K_M", attn_v, first_two, "q5_K"},
    {"Q3_K_M", attn_v, always, "q4_K"},
    {"Q3_K_L", attn_v, always, "q5_K"},
    {"Q4_K_S", attn_v, gqa4, "q5_K"},
    {"Q4_K_S", attn_v, first_four, "q5_K"},
    {"Q4_K_M Q5_K_M", attn_v, more, "q6_K"},
    {"Q4_K_M", attn_v, gqa4, "q5_K"},
    {"Q5_K_M", attn_v, gqa4, "q6_K"},

    {"LOW_BIT", attn_k, experts8, "q4_K"},
    {"LOW_BIT", attn_k, always, ""},
    {"*", attn_k, experts4, "q8_0"},
    {"IQ3_XS", attn_k, always, "iq3_xxs"},
    {"IQ3_XXS", attn_k, always, "iq2_s"},

    {"LOW_BIT", attn_q, experts8, "q4_K"},
    {"IQ3_XS", attn_q, always, "iq3_xxs"},
    {"IQ3_XXS", attn_q, always, "iq2_s"},

    {"LOW_BIT", attn_qkv, experts8, "q4_K"},
    {"IQ2_S IQ2_M", attn_qkv, always, "iq3_xxs"},
    {"IQ2_KT", attn_qkv, always, "iq3_k"},
    {"LOW_BIT", attn_qkv, always, "iq2_k"},
    {"IQ3_XS", attn_qkv, always, "iq3_xxs"},
    {"IQ3_XXS", attn_qkv, always, "iq2_s"},

    {"LOW_BIT", attn_output, experts4, "q5_K"},
    {"IQ2_S IQ2_M", attn_output, always, "iq3_s"},
    {"IQ1_S IQ1_M", attn_output, always, "iq2_k"},
    {"IQ2_KT", attn_output, always, "iq3_k"},
    {"Q3_K_L", attn_output, falcon, "q4_K"},
    {"Q2_K Q3_K_M IQ3_XXS IQ3_M IQ2_K", attn_output, falcon, ""},
    {"IQ2_KL", attn_output, experts4, "iq4_ks"},
    {"Q2_K Q3_K_S Q3_K_M Q4_K_S Q4_K_M IQ3_XXS IQ3_XS IQ3_S IQ3_M IQ4_NL IQ4_XS IQ2_K IQ3_K IQ3_KS IQ3_KT "
     "IQ4_K IQ4_KS "
     "IQ4_KSS IQ5_KS",
     attn_output, experts4, "q5_K"},
    {"Q3_K_L", attn_output, experts4, ""},
    {"Q2_K", attn_output, always, "q3_K"},
    {"IQ2_K", attn_output, always, "iq3_k"},
    {"IQ3_KT", attn_output, gqa4, "iq3_k"},
    {"IQ3_XXS", attn_output, always, "iq3_s"},
    {"IQ3_M", attn_output, always, "iq4_k"},
    {"Q3_K_M", attn_output, always, "q4_K"},
    {"Q3_K_L", attn_output, always, "q5_K"},

    {"IQ2_S IQ2_M", ffn_down, counted_eighth, "iq3_s"},
    {"IQ2_KT", ffn_down, counted_eighth, "iq3_k"},
    {"LOW_BIT", ffn_down, counted_eighth, "q2_K"},
    {"Q2_K", ffn_down, always, "q3_K"},
    {"Q2_K_S", ffn_down, first_eighth, "q4_K"},
    {"IQ3_XXS", ffn_down, no_imatrix | first_eighth, "q4_K"},
    {"IQ3_XXS", ffn_down, no_imatrix, "q3_K"},
    {"IQ3_KT", ffn_down, no_imatrix | first_eighth, "iq4_k"},
    {"IQ3_KT", ffn_down, no_imatrix, "iq3_k"},
    {"Q3_K_M", ffn_down, first_sixteenth, "q5_K"},
    {"Q3_K_M", ffn_down, falcon | more, "q4_K"},
    {"Q3_K_M", ffn_down, falcon, ""},
    {"Q3_K_M", ffn_down, always, "q4_K"},
    {"Q3_K_L", ffn_down, falcon, "q4_K"},
    {"Q3_K_L", ffn_down, always, "q5_K"},
    {"IQ3_M", ffn_down, first_eighth, "iq4_k"},
    {"IQ3_M", ffn_down, experts4 | more, "iq4_k"},
    {"IQ4_NL IQ4_XS IQ4_KS IQ4_KSS", ffn_down, no_imatrix | first_eighth, "q5_K"},
    {"Q4_0", ffn_down, imatrix | first_eighth, "q4_1"},
    {"Q5_0", ffn_down, imatrix | first_eighth, "q5_1"},
    {"Q4_K_S", ffn_down, falcon, ""},
    {"Q4_K_S", ffn_down, first_eighth, "q5_K"},
    {"Q4_K_M", ffn_down, falcon | first_sixteenth, "q6_K"},
    {"Q4_K_M", ffn_down, falcon | more, "q5_K"},
    {"Q4_K_M", ffn_down, falcon, ""},
    {"Q4_K_M Q5_K_M", ffn_down, more, "q6_K"},

    {"IQ3_XS", ffn_gate, middle, "iq3_xxs"},
    {"IQ2_KT", ffn_gate, experts8 | first, "iq3_k"},
    {"IQ3_XS", ffn_up, middle, "iq3_xxs"},
    {"IQ2_KT", ffn_up, experts8 | first, "iq3_k"},
});

/// Under ik_llama.cpp a token_embd that serves as the output too gets a better type in low-bit mixes.
constexpr auto ik_tied_rules = std::to_array<mix_rule>({
    {"*", output, falcon, "q8_0"},
    {"*", output, odd_width, "q8_0"},
    {"LOW_BIT IQ3_XXS IQ3_K IQ3_KS IQ2_K IQ2_KL IQ1_KT IQ3_KT", output, always, "iq4_k"},
    {"IQ3_S IQ3_M IQ4_XS IQ4_KS IQ4_KSS", output, always, "iq5_k"},
});

bool contains(std::string_view s, std::string_view part) { return s.find(part) != std::string_view::npos; }

/// Whether `name` is one of the words of `list`.
bool lists(std::string_view list, std::string_view name) {
  if (list == "*") return true;
  for (std::size_t at = 0; (at = list.find(name, at)) != std::string_view::npos; ++at) {
    const auto end = at + name.size();
    if ((at == 0 || list[at - 1] == ' ') && (end == list.size() || list[end] == ' ')) return true;
  }
  return false;
}

const mix_rule* find_rule(std::span<const mix_rule> rules, const file_type& type, tensor_class kind,
                          std::uint32_t facts) {
  for (const auto& r : rules)
    if ((r.tensors == kind || r.tensors == any) && (facts & r.facts) == r.facts &&
        (lists(r.file_types, type.name) || (lists(low_bit, type.name) && lists(r.file_types, "LOW_BIT"))))
      return &r;
  return nullptr;
}

/// Sizes that llama.cpp calls 70B, by architecture and number of blocks.
bool is_70b(const model_traits& m) {
  if (m.architecture == "llama" || m.architecture == "llama-embed")
    return m.blocks == 80 && m.heads != m.kv_heads;
  if (m.architecture == "jais2") return m.blocks == 68;
  return m.blocks == 80 &&
         (m.architecture == "qwen2" || m.architecture == "deci" || m.architecture == "olmo");
}

std::uint32_t facts_of(const model_traits& m, bool has_imatrix) {
  std::uint32_t f = has_imatrix ? imatrix : no_imatrix;
  if (m.kv_heads > 0 && m.heads / m.kv_heads >= 4) f |= gqa4;
  if (m.experts >= 4) f |= experts4;
  if (m.experts >= 8) f |= experts8;
  if (m.experts == 8) f |= mixtral;
  if (m.architecture == "falcon") f |= falcon;
  if (is_70b(m)) f |= size_70b;
  return f;
}

std::uint32_t facts_of_place(std::int64_t i, std::int64_t n) {
  std::uint32_t f = 0;
  if (i < n / 8) f |= first_eighth;
  if (i < n / 16) f |= first_sixteenth;
  if (i >= n / 8 && i < 7 * n / 8) f |= middle;
  if (i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2) f |= more;
  if (i == 0) f |= first;
  if (i < 2) f |= first_two;
  if (i < 4) f |= first_four;
  return f;
}

bool is_embedding(std::string_view name) {
  return name == "token_embd.weight" || name == "per_layer_token_embd.weight";
}

tensor_class class_in_llama_cpp(std::string_view name) {
  for (const auto* value : {"attn_v.weight", "attn_qkv.weight", "attn_kv_b.weight"})
    if (contains(name, value)) return attn_v;
  if (contains(name, "attn_k.weight")) return attn_k;
  if (contains(name, "attn_q.weight")) return attn_q;
  if (contains(name, "attn_output.weight")) return attn_output;
  return other;
}

tensor_class class_in_ik(std::string_view name) {
  if (contains(name, "attn_v.weight")) return attn_v;
  if (contains(name, "attn_qkv.weight")) return attn_qkv;
  if (contains(name, "attn_k")) return attn_k;
  if (contains(name, "attn_q")) return attn_q;
  if (contains(name, "attn_output.weight")) return attn_output;
  return other;
}

std::int64_t integer_or_zero(const gguf::metadata& meta, const std::string& key) {
  const auto v = meta.integers(key);
  return v && !v->empty() ? std::max<std::int64_t>(v->front(), 0) : 0;
}

}  // namespace

model_traits traits_of(const gguf::metadata& meta, const std::vector<gguf::tensor_info>& tensors) {
  model_traits m;
  if (const auto a = meta.string("general.architecture")) m.architecture = *a;
  const auto number = [&](const char* key) { return integer_or_zero(meta, m.architecture + "." + key); };
  m.blocks = number("block_count");
  if (m.blocks == 0)  // by the names, in models that lack the key
    for (const auto& t : tensors) m.blocks = std::max(m.blocks, block_index(t.name).value_or(-1) + 1);
  m.unrun_blocks = std::min(number("nextn_predict_layers"), m.blocks);
  m.heads = number("attention.head_count");
  m.kv_heads = meta.contains(m.architecture + ".attention.head_count_kv") ? number("attention.head_count_kv")
                                                                          : m.heads;
  m.experts = number("expert_count");
  m.tied_embeddings =
      std::none_of(tensors.begin(), tensors.end(), [](const auto& t) { return t.name == "output.weight"; });
  return m;
}

bool is_known_architecture(std::string_view name) {
  return lists(
      "afmoe apertus arcee arctic arwkv7 baichuan bailingmoe bailingmoe2 bert bitnet bloom chameleon chatglm "
      "codeshell cogvlm "
      "cohere2 command-r dbrx deci deepseek deepseek2 deepseek2-ocr dots1 dream ernie4_5 ernie4_5-moe "
      "eurobert exaone exaone-moe "
      "exaone4 falcon falcon-h1 gemma gemma-embedding gemma2 gemma3 gemma3n gemma4 glm-dsa glm4 glm4moe "
      "gpt-oss gpt2 gptneox "
      "granite granitehybrid granitemoe grok grovemoe hunyuan-dense hunyuan-moe hunyuan_vl internlm2 jais "
      "jais2 jamba "
      "jina-bert-v2 jina-bert-v3 kimi-linear lfm2 lfm2moe llada llada-moe llama llama-embed llama4 maincoder "
      "mamba mamba2 mimo2 "
      "minicpm minicpm3 minimax-m2 mistral3 mistral4 modern-bert mpt nemotron nemotron_h nemotron_h_moe "
      "neo-bert nomic-bert "
      "nomic-bert-moe olmo olmo2 olmoe openelm orion paddleocr pangu-embedded phi2 phi3 phimoe plamo plamo2 "
      "plamo3 plm qwen "
      "qwen2 qwen2moe qwen2vl qwen3 qwen35 qwen35moe qwen3moe qwen3next qwen3vl qwen3vlmoe refact rnd1 rwkv6 "
      "rwkv6qwen2 rwkv7 "
      "seed_oss smallthinker smollm3 stablelm starcoder starcoder2 step35 t5 t5encoder wavtokenizer-dec "
      "xverse",
      name);
}

std::optional<std::int64_t> block_index(std::string_view name) {
  if (!name.starts_with("blk.")) return std::nullopt;
  name.remove_prefix(4);
  std::int64_t i = 0;
  const auto [end, failure] = std::from_chars(name.data(), name.data() + name.size(), i);
  if (failure != std::errc{} || i < 0 || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return i;
}

tensor_class class_of(std::string_view name, dialect d, const model_traits& model) {
  if (name == "output.weight") return output;
  if (is_embedding(name)) return model.tied_embeddings ? output : token_embd;
  if (const auto kind = d == dialect::ik ? class_in_ik(name) : class_in_llama_cpp(name); kind != other)
    return kind;
  if (contains(name, "ffn_down")) return ffn_down;
  if (contains(name, "ffn_gate")) return ffn_gate;
  if (contains(name, "ffn_up")) return ffn_up;
  return other;
}

mixer::mixer(const file_type& type, dialect d, const model_traits& model, bool has_imatrix,
             const std::vector<gguf::tensor_info>& tensors)
    : type_(type), dialect_(d), model_(model), facts_(facts_of(model, has_imatrix)) {
  values_ = std::count_if(tensors.begin(), tensors.end(),
                          [&](const auto& t) { return class_of(t.name, d, model) == attn_v; });
}

/// V projections are counted among themselves. Feed-forward tensors go by their block where there are experts, and are
/// counted elsewhere.
std::uint32_t mixer::place(const gguf::tensor_info& t, tensor_class kind) {
  const bool by_block = kind != attn_v && model_.experts > 1;
  const std::int64_t seen = seen_[static_cast<std::size_t>(kind)]++;
  const std::int64_t n = kind == attn_v ? values_ : model_.blocks;
  return facts_of_place(by_block ? block_index(t.name).value_or(seen) : seen, n) |
         (seen < n / 8 ? counted_eighth : 0);
}

std::string_view mixer::choose(const gguf::tensor_info& t) {
  if (type_.is_float()) return type_.base;
  const auto kind = class_of(t.name, dialect_, model_);
  std::uint32_t facts = facts_ | place(t, kind);
  if (t.cols() % 256 != 0) facts |= odd_width;
  if (t.slices() > 1) facts |= stacked;
  const mix_rule* r = nullptr;
  if (dialect_ == dialect::ik && kind == output && model_.tied_embeddings)
    r = find_rule(ik_tied_rules, type_, kind, facts);
  if (dialect_ == dialect::llama_cpp) r = find_rule(mxfp4_moe_rules, type_, kind, facts);
  if (!r)
    r = find_rule(dialect_ == dialect::ik ? std::span<const mix_rule>(ik_rules) : llama_cpp_rules, type_,
                  kind, facts);
  return r && !r->type.empty() ? r->type : type_.base;
}

}  // namespace quantal::plan

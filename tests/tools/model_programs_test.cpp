// quantal-imatrix, quantal-perplexity, quantal-inspect and quantal-relayout as a user runs them, on a
// fixture.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>

#include "file.hpp"
#include "json.hpp"
#include "quantal/gguf/reader.hpp"
#include "quantal/gguf/writer.hpp"
#include "quantal/imatrix/io.hpp"
#include "shell.hpp"
#include "support/edited_model.hpp"
#include "support/paths.hpp"
#include "synthetic.hpp"

namespace quantal {
namespace {

using test::expect;
using test::shell;

class model_programs : public ::testing::Test {
 protected:
  model_programs() {
    std::string text;
    for (int i = 0; text.size() < 3000; ++i)
      text += "Item " + std::to_string(i * 7919 % 1000) + " of the list, said the author; see section " +
              std::to_string(i) + ".\n";
    EXPECT_TRUE(file::write(dir / "text.txt", text));
  }
  std::string path(const std::string& name) { return (dir / name).string(); }
  std::string collect(const std::string& model, const std::string& out, const std::string& more = "") {
    return imatrix + " -m " + model + " -f " + path("text.txt") + " -c 64 -o " + path(out) + " " + more;
  }
  imatrix::store load(const std::string& name) {
    auto s = imatrix::load(path(name));
    EXPECT_TRUE(s) << s.error().message;
    return s ? *s : imatrix::store{};
  }

  /// The fixture with a change, under a name of its own.
  std::string edited(const std::string& name, const test::model_edit& edit) {
    test::edit_model(heads, dir / name, edit);
    return path(name);
  }
  /// JSON of a program that succeeds.
  json document(const std::string& command) {
    const auto o = shell(command + " 2>/dev/null");
    EXPECT_EQ(o.code, 0) << command << "\n" << o.text;
    return o.code == 0 ? json::parse(o.text) : json::object();
  }
  std::string write_base(const std::string& model, const std::string& name, const std::string& how) {
    return perplexity + " -m " + model + " -f " + path("text.txt") + " " + how +
           " --json --overwrite-base --kl-divergence-base " + path(name);
  }
  std::string read_base(const std::string& model, const std::string& name, const std::string& more = "") {
    return perplexity + " -m " + model + " --kl-divergence --json --kl-divergence-base " + path(name) + " " +
           more;
  }

  test::temporary_folder dir;
  const std::string imatrix = QUANTAL_IMATRIX, perplexity = QUANTAL_PERPLEXITY, inspect = QUANTAL_INSPECT,
                    quantize = QUANTAL_QUANTIZE, relayout = QUANTAL_RELAYOUT, validate = QUANTAL_VALIDATE;
  const std::string fixtures = test::data_file("/fixtures/");
  const std::string heads = fixtures + "fixture-v2lite-mainline-bf16.gguf",
                    rows = fixtures + "fixture-v2lite-ik-bf16.gguf";
};

TEST_F(model_programs, help_and_wrong_usage) {
  for (const auto& p : {imatrix, perplexity, inspect, relayout}) {
    expect(p + " --help", 0, "usage:");
    expect(p + " --nope", 2, "unknown option '--nope'");
  }
  expect(imatrix, 2, "nothing to do");
  expect(imatrix + " -f x", 2, "-f needs -m and -o");
  expect(imatrix + " -m x --in-file y -mla 4", 2, "-mla");
  expect(imatrix + " --in-file y --check", 2, "--check needs -m");
  expect(perplexity + " -m x", 2, "nothing to do");
  expect(perplexity + " -m x --tokens y", 2, "go together");
  expect(perplexity + " -m x --kl-divergence", 2, "needs --kl-divergence-base");
  expect(inspect, 2, "missing argument");
  expect(relayout + " --layout 4d a b", 2, "is not one of");
}

TEST_F(model_programs, every_mode_and_layout_collects_the_same_entries) {
  expect(collect(heads, "base.gguf", "-mla 0"), 0, "stored ");
  const auto base = load("base.gguf");
  for (const char* part : {"attn_k_b", "attn_v_b", "attn_kv_b"})
    EXPECT_TRUE(base.entries.contains(std::string("blk.1.") + part + ".weight")) << part;
  for (const auto& model : {heads, rows})
    for (const char* mode : {"-mla 1", "-mla 2 -fa", "-mla 3 -fa -b 24"}) {
      expect(collect(model, "other.gguf", mode), 0, "stored ");
      const auto other = load("other.gguf");
      ASSERT_EQ(base.entries.size(), other.entries.size()) << mode;
      for (const auto& [name, e] : base.entries) {
        const auto it = other.entries.find(name);
        ASSERT_NE(it, other.entries.end()) << name << " " << mode;
        EXPECT_EQ(e.counts, it->second.counts) << name << " " << mode;
        for (std::size_t i = 0; i < e.sums.size(); ++i)
          ASSERT_NEAR(e.sums[i], it->second.sums[i], 1e-3 * e.sums[i] + 1e-5) << name << " " << mode;
      }
    }
}

TEST_F(model_programs, imatrix_bytes_do_not_depend_on_threads) {
  expect(collect(heads, "a.gguf", "-t 2"), 0, "stored ");
  expect(collect(heads, "b.gguf", "-t 1"), 0, "stored ");
  EXPECT_TRUE(*file::read_text(dir / "a.gguf") == *file::read_text(dir / "b.gguf"));
}

TEST_F(model_programs, resuming_and_merging_are_exact) {
  expect(collect(heads, "all.gguf", "--chunks 6"), 0, "stored ");
  expect(collect(heads, "first.gguf", "--chunks 2 -ofreq 1"), 0, "collected 2 chunks");
  expect(collect(heads, "resumed.gguf", "--from-chunk 2 --chunks 4 --in-file " + path("first.gguf")), 0,
         "collected 4 chunks");
  expect(collect(heads, "rest.gguf", "--from-chunk 2 --chunks 4"), 0, "collected 4 chunks");
  expect(imatrix + " --in-file " + path("first.gguf") + " --in-file " + path("rest.gguf") + " -o " +
             path("merged.gguf"),
         0, "stored ");
  const auto all = load("all.gguf");
  EXPECT_EQ(all.chunk_count(), 6);
  for (const char* name : {"resumed.gguf", "merged.gguf"}) {
    const auto s = load(name);
    for (const auto& [key, e] : all.entries) {
      ASSERT_TRUE(s.entries.contains(key));
      EXPECT_EQ(e.counts, s.entries.at(key).counts) << key;
      for (std::size_t i = 0; i < e.sums.size(); ++i)
        ASSERT_NEAR(e.sums[i], s.entries.at(key).sums[i], 1e-12 * e.sums[i]) << key;
    }
  }
}

TEST_F(model_programs, streamed_runs_write_the_same_files) {
  const auto bytes = [&](const std::string& name) { return *file::read_text(dir / name); };
  for (const auto& model : {heads, rows})
    for (const std::string how : {"-t 1", "-mla 0 -b 24", "-mla 3 -fa --all-experts --process-output"}) {
      const auto run = [&](const std::string& name, const std::string& more) {
        expect(collect(model, name + ".gguf", how + " --hessian " + path(name + ".moments") + more), 0,
               "stored ");
      };
      run("resident", ""), run("streamed", " --stream");
      EXPECT_TRUE(bytes("resident.gguf") == bytes("streamed.gguf")) << model << " " << how;
      EXPECT_TRUE(bytes("resident.moments") == bytes("streamed.moments")) << model << " " << how;
      EXPECT_FALSE(std::filesystem::exists(dir / "streamed.gguf.stream"));
    }
  for (const std::string how : {"-c 64", "-c 64 -b 24 -mla 3 -fa", "-c 64 --act q8"}) {
    const auto resident = document(write_base(heads, "a.kld", how)),
               streamed = document(write_base(heads, "b.kld", how + " --stream"));
    EXPECT_EQ(resident, streamed) << how;
    EXPECT_TRUE(bytes("a.kld") == bytes("b.kld")) << how;
  }
  EXPECT_EQ(document(read_base(rows, "a.kld")), document(read_base(rows, "a.kld", "--stream")));
  const std::int32_t tokens[] = {1, 5, 9, 200, 7, 8};
  ASSERT_TRUE(file::write(dir / "tokens", std::as_bytes(std::span(tokens))));
  const std::string dump = perplexity + " -m " + heads + " --tokens " + path("tokens") + " --logits-out ";
  expect(dump + path("a.logits"), 0, ""), expect(dump + path("b.logits") + " --stream", 0, "");
  EXPECT_TRUE(bytes("a.logits") == bytes("b.logits"));
}

TEST_F(model_programs, parts_of_a_text_add_up_to_the_bytes_of_one_run) {
  expect(collect(heads, "whole.gguf", "--chunks 0:7"), 0, "collected 7 chunks");
  expect(collect(heads, "a.gguf", "--chunks 0:3 --stream"), 0, "collected 3 chunks");
  expect(collect(heads, "b.gguf", "--chunks 3:7"), 0, "collected 4 chunks");
  const std::string merge = imatrix + " -o " + path("merged.gguf") + " --in-file ";
  expect(merge + path("a.gguf") + " " + path("b.gguf"), 0, "stored ");
  EXPECT_TRUE(*file::read_text(dir / "merged.gguf") == *file::read_text(dir / "whole.gguf"));
  expect(merge + path("b.gguf") + " " + path("a.gguf"), 0, "stored ");
  EXPECT_EQ(load("merged.gguf").datasets.size(), 2u);  // no part of a text
  for (const char* range : {"3:3", ":3", "3:", "a:b", "5:2", "x"})
    expect(collect(heads, "c.gguf", std::string("--chunks ") + range), 2, "--chunks");
  expect(collect(heads, "c.gguf", "--chunks 0:3 --in-file " + path("a.gguf")), 2, "begins anew");
}

TEST_F(model_programs, the_slurm_job_gives_the_bytes_of_one_machine) {
  expect(collect(heads, "whole.gguf", "--chunks 0:7"), 0, "stored ");
  const std::string job = test::model_file("/../cluster/imatrix.slurm ") + heads + " " + path("text.txt") +
                          " " + path("out.gguf"),
                    set = "QUANTAL_IMATRIX=" + imatrix + " CHUNKS=7 ";
  for (const char* task : {"0", "1"})
    expect(set + "SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_ID=" + task + " bash " + job + " -c 64", 0,
           "stored ");
  expect(set + "PARTS=2 bash " + job, 0, "stored ");
  EXPECT_TRUE(*file::read_text(dir / "out.gguf") == *file::read_text(dir / "whole.gguf"));
  EXPECT_FALSE(std::filesystem::exists(dir / "out.gguf.part-0"));
}

TEST_F(model_programs, the_report_says_what_every_phase_took) {
  const auto d = document(collect(heads, "a.gguf", "--stream --json"))["pass"];
  EXPECT_TRUE(d["streamed"]);
  EXPECT_GT(d["tokens_per_second"], 0);
  for (const char* phase : {"blocks", "reading", "waiting", "embedding", "keeping", "output"})
    EXPECT_TRUE(d["phases"].contains(phase)) << phase;
  EXPECT_GT(d["phases"]["reading"]["bytes"], 0);
  EXPECT_GT(d["phases"]["blocks"]["share"], 0);
}

/// Bytes of all tensors of a model.
std::uint64_t tensor_bytes(const std::filesystem::path& model) {
  std::uint64_t sum = 0;
  const auto file = *gguf::reader::open(model);
  for (const auto& t : file.tensors()) sum += t.nbytes;
  return sum;
}

TEST_F(model_programs, second_moments_choose_codes) {
  const std::string gather = " --hessian " + path("moments.gguf") + " -t ";
  expect(collect(heads, "imatrix.gguf", gather + "2"), 0, "stored second moments");
  const auto first = *file::read_text(dir / "moments.gguf");
  expect(collect(heads, "again.gguf", gather + "1"), 0, "more have the same inputs");
  EXPECT_TRUE(first == *file::read_text(dir / "moments.gguf"));
  EXPECT_TRUE(*file::read_text(dir / "imatrix.gguf") == *file::read_text(dir / "again.gguf"));
  const std::string merge = imatrix + " --hessian-in " + path("moments.gguf") + " --hessian ";
  expect(merge + path("twice.gguf") + " --hessian-in " + path("moments.gguf"), 0, "stored second moments");
  const auto command = [&](const std::string& out, const std::string& more) {
    return quantize + " --pure --imatrix " + path("imatrix.gguf") + " " + more + " " + heads + " " +
           path(out) + " Q4_0 ";
  };
  expect(command("plain.gguf", "") + "2", 0, "");
  expect(command("a.gguf", "--hessian " + path("moments.gguf")) + "1", 0, "output nmse");
  const auto report = document(command("b.gguf", "--json --hessian " + path("moments.gguf")) + "2");
  EXPECT_TRUE(*file::read_text(dir / "a.gguf") == *file::read_text(dir / "b.gguf"));
  EXPECT_FALSE(*file::read_text(dir / "a.gguf") == *file::read_text(dir / "plain.gguf"));
  EXPECT_EQ(tensor_bytes(dir / "a.gguf"), tensor_bytes(dir / "plain.gguf"));
  int accepted = 0;
  for (const auto& t : report["tensors"])
    if (t.contains("output") && t["output"]["accepted"]) {
      EXPECT_LT(t["output"]["chosen_nmse"], t["output"]["plain_nmse"]) << t["name"];
      ++accepted;
    }
  EXPECT_GT(accepted, 0);
  expect(command("c.gguf", "--hessian " + path("imatrix.gguf")), 1, "general.type is not 'moments'");
  expect(command("c.gguf", "--hessian " + path("none.gguf")), 1, "none.gguf");
  expect(imatrix + " --hessian " + path("x.gguf"), 2, "");
  expect(merge + path("moments.gguf"), 1, "moments.gguf");
  const std::string describe = imatrix + " --hessian-in " + path("moments.gguf");
  expect(describe + " --show-statistics", 0, "Second moments");
  expect(describe + " --check -m " + heads, 0, "0 of ");
  EXPECT_EQ(document(describe + " --check --show-statistics --json -m " + heads)["moments_gaps"], 0);
  expect(describe, 2, "needs --hessian, --show-statistics or --check");
  expect(describe + " " + path("twice.gguf") + " --check -m " + heads, 2, "need --hessian");
}

TEST_F(model_programs, check_reports_gaps) {
  expect(collect(heads, "i.gguf", "--all-experts"), 0, "stored ");
  expect(imatrix + " -m " + rows + " --in-file " + path("i.gguf") + " --check", 0, "0 of ");
  auto s = load("i.gguf");
  s.entries.erase("blk.1.attn_output.weight");
  ASSERT_TRUE(imatrix::save_gguf(s, dir / "gap.gguf"));
  expect(imatrix + " -m " + heads + " --in-file " + path("gap.gguf") + " --check", 1, "NO DATA");
  const auto o =
      shell(imatrix + " -m " + heads + " --in-file " + path("gap.gguf") + " --check --json 2>/dev/null");
  EXPECT_EQ(o.code, 1);
  EXPECT_EQ(json::parse(o.text)["gaps"], 1);
  expect(imatrix + " --in-file " + path("i.gguf") + " --show-statistics", 0, "Entropy");
}

TEST_F(model_programs, legacy_files_follow_the_layout_of_the_model) {
  expect(collect(heads, "h.dat", "--output-format dat"), 0, "stored ");
  expect(collect(rows, "r.dat", "--output-format dat"), 0, "mean over heads");
  const auto h = load("h.dat"), r = load("r.dat");
  const auto values = [](const imatrix::store& s) {
    return s.entries.at("blk.0.attn_k_b.weight").sums.size();
  };
  EXPECT_EQ(values(h), 4u * 32);
  EXPECT_EQ(values(r), 32u);
  for (const auto& name : {"h.dat", "r.dat"})
    for (const auto& model : {heads, rows})
      expect(imatrix + " -m " + model + " --in-file " + path(name) + " --check", 0, "0 of ");
}

TEST_F(model_programs, imatrix_failures_leave_no_file) {
  const auto whole = *file::read_text(heads);
  ASSERT_TRUE(file::write(dir / "cut.gguf", std::string_view(whole).substr(0, whole.size() / 2)));
  ASSERT_TRUE(file::write(dir / "short.txt", "a few words"));
  expect(collect(path("none.gguf"), "o.gguf"), 1, "none.gguf: cannot open");
  expect(collect(path("cut.gguf"), "o.gguf"), 1, "cut.gguf");
  expect(imatrix + " -m " + heads + " -f " + path("short.txt") + " -o " + path("o.gguf"), 1,
         "fewer than two chunks");
  expect(imatrix + " -m " + heads + " -f " + path("none.txt") + " -o " + path("o.gguf"), 1,
         "none.txt: cannot open");
  expect(collect(heads, "o.gguf", "--in-file " + path("short.txt")), 1, "short.txt");
  expect(imatrix + " -m " + heads + " -f " + path("text.txt") + " -c 64 -o " + path("no/such/o.gguf"), 1,
         "no/such/o.gguf");
  EXPECT_FALSE(std::filesystem::exists(path("o.gguf")));
}

TEST_F(model_programs, activations_that_are_not_finite_name_the_tensor) {
  auto bytes = *file::read_text(heads);
  const auto model = gguf::reader::open(heads);
  ASSERT_TRUE(model);
  const auto* t = model->find("blk.1.attn_output.weight");
  const auto data = *model->data(*t);
  const auto at = bytes.find(std::string(reinterpret_cast<const char*>(data.data()), 64));
  ASSERT_NE(at, std::string::npos);
  bytes[at] = '\xC0', bytes[at + 1] = '\x7F';  // a bf16 NaN
  ASSERT_TRUE(file::write(dir / "nan.gguf", bytes));
  expect(collect(path("nan.gguf"), "o.gguf"), 1, "blk.1.");
  EXPECT_FALSE(std::filesystem::exists(path("o.gguf")));
}

TEST_F(model_programs, perplexity_and_divergence) {
  const std::string common = perplexity + " -m " + heads + " -c 64 ";
  const auto o = shell(common + "--json -f " + path("text.txt") + " --kl-divergence-base " +
                       path("base.kld") + " 2>/dev/null");
  ASSERT_EQ(o.code, 0) << o.text;
  const auto plain = json::parse(o.text);
  EXPECT_GT(plain["ppl"].get<double>(), 1);
  const auto same = json::parse(
      shell(common + "--json --kl-divergence --kl-divergence-base " + path("base.kld") + " 2>/dev/null")
          .text);
  EXPECT_NEAR(same["ppl"].get<double>(), plain["ppl"].get<double>(), 1e-6 * plain["ppl"].get<double>());
  EXPECT_LT(same["mean_kld"].get<double>(), 1e-4);
  EXPECT_NEAR(same["same_top"].get<double>(), 1.0, 0.02);
  expect(quantize + " --pure " + heads + " " + path("q.gguf") + " Q4_0", 0, "BPW");
  const auto coarse =
      json::parse(shell(perplexity + " -m " + path("q.gguf") +
                        " --json --kl-divergence --kl-divergence-base " + path("base.kld") + " 2>/dev/null")
                      .text);
  EXPECT_GT(coarse["mean_kld"].get<double>(), same["mean_kld"].get<double>());
  const auto whole = *file::read_text(dir / "base.kld");
  for (const std::size_t n :
       {std::size_t{0}, std::size_t{7}, std::size_t{19}, whole.size() / 2, whole.size() - 1}) {
    ASSERT_TRUE(file::write(dir / "cut.kld", std::string_view(whole).substr(0, n)));
    expect(common + "--kl-divergence --kl-divergence-base " + path("cut.kld"), 1, "cut.kld");
  }
}

constexpr std::uint32_t bos = 9;

/// add_bos_token and add_eos_token: absent, off, on.
test::model_edit tokenizer_keys(int add_bos, int add_eos) {
  return {[=](gguf::metadata& m) {
    m.set("tokenizer.ggml.bos_token_id", bos);
    for (const auto& [key, state] : {std::pair{"tokenizer.ggml.add_bos_token", add_bos},
                                     std::pair{"tokenizer.ggml.add_eos_token", add_eos}})
      if (state == 0)
        m.erase(key);
      else
        m.set(key, state == 2);
  }};
}

TEST_F(model_programs, a_model_against_itself_under_every_tokenizer) {
  std::map<int, double> ppl;
  for (const int add_bos : {0, 1, 2})
    for (const int add_eos : {0, 1, 2}) {
      const std::string model = edited("m.gguf", tokenizer_keys(add_bos, add_eos));
      const bool odd = add_eos == 2;
      const auto plain = document(write_base(model, "m.kld", odd ? "-c 33 --chunks 5" : "-c 64 --chunks 3"));
      const auto same = document(read_base(model, "m.kld"));
      EXPECT_LT(std::fabs(same["mean_kld"].get<double>()), 2e-6) << add_bos << add_eos;
      EXPECT_LT(same["max_kld"].get<double>(), 1e-4) << add_bos << add_eos;
      EXPECT_NEAR(same["ppl"].get<double>(), plain["ppl"].get<double>(), 1e-9 * plain["ppl"].get<double>());
      EXPECT_NEAR(same["log_ratio"].get<double>(), 0, 1e-4);
      if (!odd) ppl[add_bos] = plain["ppl"];
      const std::string reference = model + " --reference " + model + " --text " + path("text.txt") +
                                    (odd ? " -c 33 --chunks 5" : " -c 64 --chunks 3");
      const auto other = document(validate + " " + reference + " -o json")["model_metrics"];
      for (const auto& [theirs, ours] : {std::pair{"ppl", "ppl"}, std::pair{"kld", "mean_kld"},
                                         std::pair{"kld_99", "kld_99"}, std::pair{"same_top", "same_top"}})
        EXPECT_NEAR(other[theirs].get<double>(), same[ours].get<double>(), 1e-9)
            << theirs << add_bos << add_eos;
    }
  EXPECT_EQ(ppl[0], ppl[1]);
  EXPECT_NE(ppl[1], ppl[2]);
}

TEST_F(model_programs, base_files_hold_the_tokens_before_bos) {
  const std::string model = edited("on.gguf", tokenizer_keys(2, 1));
  (void)document(write_base(model, "on.kld", "-c 64 --chunks 3"));
  const auto bytes = *file::read_text(dir / "on.kld");
  std::vector<std::int32_t> tokens(3 * 64);
  std::memcpy(tokens.data(), bytes.data() + 20, tokens.size() * 4);
  EXPECT_EQ(tokens[0], static_cast<std::int32_t>(bos));  // the tokenizer's, at the start of the text
  EXPECT_NE(tokens[64], static_cast<std::int32_t>(bos));
  EXPECT_NE(tokens[128], static_cast<std::int32_t>(bos));
  // A file without tokenizer keys other than these is evaluated alike.
  const auto bare = edited("bare.gguf", {[](gguf::metadata& m) {
                             tokenizer_keys(2, 1).keys(m);
                             m.erase("tokenizer.ggml.merges");
                           }});
  EXPECT_LT(std::fabs(document(read_base(bare, "on.kld"))["mean_kld"].get<double>()), 2e-6);
  // The two kinds of evaluation differ, and that shows.
  EXPECT_GT(document(read_base(edited("off.gguf", tokenizer_keys(1, 1)), "on.kld"))["mean_kld"].get<double>(),
            1e-5);
}

TEST_F(model_programs, values_that_are_not_finite_are_failures) {
  (void)document(write_base(heads, "good.kld", "-c 64 --chunks 2"));
  const std::string common = " -f " + path("text.txt") + " -c 64 --chunks 2 ";
  for (const std::string tensor : {"blk.0.attn_q.weight", "blk.1.ffn_up_exps.weight", "output.weight"}) {
    const std::string model = edited("nan.gguf", test::nan_in(tensor));
    expect(perplexity + " -m " + model + common, 1, "chunk 0: " + model + ": tensor '" + tensor + "'");
    expect(write_base(model, "bad.kld", "-c 64 --chunks 2"), 1, tensor);
    expect(read_base(model, "good.kld"), 1, tensor);
    ASSERT_TRUE(file::write_raw(dir / "t", std::vector<std::int32_t>{1, 2, 3, 4, 5}));
    if (tensor != "blk.1.ffn_up_exps.weight")
      expect(perplexity + " -m " + model + " --tokens " + path("t") + " --logits-out " + path("l"), 1,
             tensor);
    if (tensor != "output.weight") expect(collect(model, "bad.gguf", "--chunks 2 --no-ppl"), 1, tensor);
    EXPECT_FALSE(std::filesystem::exists(path("bad.kld")) || std::filesystem::exists(path("l")) ||
                 std::filesystem::exists(path("bad.gguf")));
    const std::string check = validate + " " + model + " --reference " + heads + " -c 64 --chunks 2";
    expect(check, 1, "FAIL: " + tensor);
    expect(check + " --text " + path("text.txt"), 1, "FAIL: " + tensor);
    expect(check + " --gate 'blk.2.attn_output: nmse<=1'", 1, "FAIL: " + tensor);
    expect(validate + " " + heads + " --reference " + model, 2, tensor);
    const auto o = shell(check + " -o json 2>/dev/null");
    EXPECT_EQ(o.code, 1);
    EXPECT_FALSE(json::parse(o.text)["passed"].get<bool>());
  }
  // One record of the base: chunk 1, third scored position.
  const auto good = *file::read_text(dir / "good.kld");
  const std::size_t record = 2 * (512 + 4), at = 20 + 4 * 128 + record * (31 + 2);
  const auto damage = [&](float scale, float low) {
    auto bytes = good;
    std::memcpy(bytes.data() + at, &scale, 4);
    std::memcpy(bytes.data() + at + 4, &low, 4);
    EXPECT_TRUE(file::write(dir / "bad.kld", bytes));
    expect(read_base(heads, "bad.kld"), 1, "bad.kld: chunk 1, position 34: ");
  };
  damage(std::nanf(""), -10);
  damage(1e-4f, -INFINITY);
  damage(1e38f, -10);
  damage(1e-4f, 3);
  damage(0, -1e30f);
}

TEST_F(model_programs, settings_that_contradict_the_base_are_refused) {
  (void)document(write_base(heads, "b.kld", "-c 64 --chunks 3"));
  expect(read_base(heads, "b.kld", "-c 32"), 1, "made with chunks of 64 tokens, but -c asks for 32");
  expect(read_base(heads, "b.kld", "-c 64"), 0, "mean_kld");
  expect(read_base(heads, "b.kld", "--chunks 9"), 0, "holds 3 chunks, fewer than the 9 asked for");
  expect(read_base(heads, "b.kld", "-f " + path("text.txt")), 0, "mean_kld");
  const auto text = *file::read_text(dir / "text.txt");
  ASSERT_TRUE(file::write(dir / "other.txt", text.substr(0, 100) + "x" + text.substr(100)));
  expect(read_base(heads, "b.kld", "-f " + path("other.txt")), 1, "made from another text");
  ASSERT_TRUE(file::write(dir / "short.txt", text.substr(0, 350)));
  expect(read_base(heads, "b.kld", "-f " + path("short.txt")), 1, "short.txt");
  auto bytes = *file::read_text(dir / "b.kld");
  const std::int32_t vocabulary = 511, context = 0x7fffffff;
  auto damaged = bytes;
  std::memcpy(damaged.data() + 12, &vocabulary, 4);  // odd: the records have the same size
  ASSERT_TRUE(file::write(dir / "v.kld", damaged));
  expect(read_base(heads, "v.kld"), 1, "v.kld");
  damaged = bytes;
  std::memcpy(damaged.data() + 8, &context, 4);
  ASSERT_TRUE(file::write(dir / "v.kld", damaged));
  expect(read_base(heads, "v.kld"), 1, "impossible sizes");
  ASSERT_TRUE(file::write(dir / "v.kld", bytes + "x"));
  expect(read_base(heads, "v.kld"), 1, "where the header implies");
  ASSERT_TRUE(file::write_raw(dir / "t", std::vector<std::int32_t>{1, 2}));
  expect(perplexity + " -m " + heads + " --tokens " + path("t") + " --logits-out " + path("l") + " -f " +
             path("text.txt"),
         2, "--tokens");
}

TEST_F(model_programs, odd_inputs_are_said) {
  const std::string common = " -f " + path("text.txt") + " -c 64 --chunks 2 ";
  const auto key = [&](const std::string& name) { return edited("gap.gguf", test::without_key(name)); };
  for (const std::string name : {"deepseek2.expert_gating_func", "deepseek2.expert_weights_scale",
                                 "tokenizer.ggml.pre", "tokenizer.ggml.add_bos_token"}) {
    const auto o = shell(perplexity + " -m " + key(name) + common);
    EXPECT_EQ(o.code, 0) << o.text;
    const auto first = o.text.find("key '" + name + "' is missing");
    EXPECT_NE(first, std::string::npos) << o.text;
    EXPECT_EQ(o.text.find(name, first + name.size() + 5), std::string::npos) << "said twice\n" << o.text;
  }
  expect(perplexity + " -m " + heads + " -f " + path("text.txt") + " -c 600", 0,
         "longer than the context that the model was trained with, 512");
  const auto text = *file::read_text(dir / "text.txt");
  std::string wide;
  for (const char c : text) wide += c, wide += '\0';
  ASSERT_TRUE(file::write(dir / "wide.txt", "\xff\xfe" + wide));
  expect(perplexity + " -m " + heads + " -f " + path("wide.txt") + " -c 64 --chunks 2", 0,
         "UTF-16, little-endian");
}

TEST_F(model_programs, logits_of_given_tokens) {
  ASSERT_TRUE(file::write_raw(dir / "t", std::vector<std::int32_t>{1, 2, 3, 4, 5}));
  expect(perplexity + " -m " + heads + " --tokens " + path("t") + " --logits-out " + path("l"), 0, "");
  const auto logits = *file::read_raw<float>(path("l"));
  ASSERT_EQ(logits.size(), 5u * 512);
  for (const float x : logits) ASSERT_TRUE(std::isfinite(x));
  ASSERT_TRUE(file::write_raw(dir / "bad", std::vector<std::int32_t>{1, 512}));
  expect(perplexity + " -m " + heads + " --tokens " + path("bad") + " --logits-out " + path("l2"), 1, "512");
  ASSERT_TRUE(file::write(dir / "odd", "xyz"));
  expect(perplexity + " -m " + heads + " --tokens " + path("odd") + " --logits-out " + path("l2"), 1, "odd");
  EXPECT_FALSE(std::filesystem::exists(path("l2")));
}

TEST_F(model_programs, inspect_models_and_matrices) {
  expect(inspect + " " + heads, 0, "blk.0.attn_k_b.weight");
  const auto doc = json::parse(shell(inspect + " --json " + heads).text);
  EXPECT_EQ(doc["metadata"]["general.architecture"], "deepseek2");
  expect(collect(heads, "i.gguf"), 0, "stored ");
  expect(inspect + " " + path("i.gguf"), 0, "importance matrix");
  EXPECT_EQ(json::parse(shell(inspect + " --json " + path("i.gguf")).text)["kind"], "imatrix");
  const auto whole = *file::read_text(heads);
  for (const std::size_t n : {std::size_t{0}, std::size_t{4}, std::size_t{100}, whole.size() - 5000}) {
    ASSERT_TRUE(file::write(dir / "cut.gguf", std::string_view(whole).substr(0, n)));
    expect(inspect + " " + path("cut.gguf"), 1, "cut.gguf");
  }
}

TEST_F(model_programs, inspect_lattices) {
  expect(quantize + " " + heads + " " + path("fp4.gguf") + " NVFP4", 0, "wrote");
  const auto found = shell(inspect + " --lattice -t 1 " + path("fp4.gguf"));
  EXPECT_EQ(found.code, 0) << found.text;
  for (const char* part :
       {"blk.0.attn_q.weight ", "FP4 (e2m1), groups of 16, all groups fit", "nvfp4 holds it"})
    EXPECT_NE(found.text.find(part), found.text.npos) << part << "\n" << found.text;
  EXPECT_EQ(found.text.find("blk.0.attn_q.scale"), found.text.npos);
  const auto doc = document(inspect + " --lattice --json " + path("fp4.gguf"));
  std::map<std::string, json> lattices;
  for (const auto& t : doc["tensors"]) lattices[t["name"]] = t["lattice"];
  const auto& q = lattices.at("blk.0.attn_q.weight");
  EXPECT_EQ(q["group"], 16);
  EXPECT_EQ(q["fitting"], q["groups"]);
  EXPECT_EQ(q["type"], "nvfp4");
  EXPECT_TRUE(q["lossless"].get<bool>());
  EXPECT_TRUE(document(inspect + " --lattice --json " + heads)["tensors"][0]["lattice"].is_null());

  expect(inspect + " --lattice " + path("none.gguf"), 1, "none.gguf");
  expect(inspect + " --lattice " + dir.path().string(), 1, "config.json");
  expect(inspect + " --lattice " + path("text.txt"), 1, "text.txt");
  expect(inspect + " --lattice -t x " + heads, 2, "-t");
  expect(inspect + " --lattice", 2, "FILE");
}

/// nv.gguf: the fixture in nvfp4, with an input scale beside a matrix.
TEST_F(model_programs, scales_beside_tensors_pass_through) {
  expect(quantize + " " + heads + " " + path("plain.gguf") + " NVFP4", 0, "wrote");
  const auto plain = gguf::reader::open(dir / "plain.gguf");
  ASSERT_TRUE(plain);
  auto tensors = plain->tensors();
  tensors.push_back(test::tensor("blk.1.attn_q.input_scale", f32::gguf_id, {1, 1, 1, 1}));
  const float quarter = 0.25f;
  {
    auto out = gguf::writer::create(dir / "nv.gguf", plain->meta(), tensors);
    ASSERT_TRUE(out) << out.error().message;
    for (const auto& t : plain->tensors()) ASSERT_TRUE(out->append(*plain->data(t)));
    ASSERT_TRUE(out->append(std::as_bytes(std::span(&quarter, 1))));
    ASSERT_TRUE(out->finish());
  }
  const std::string nv = path("nv.gguf");
  expect(relayout + " " + nv + " " + path("rows.gguf"), 0, "");
  const auto from = gguf::reader::open(nv), to = gguf::reader::open(dir / "rows.gguf");
  ASSERT_TRUE(from && to);
  int scales = 0;
  for (const auto& t : from->tensors())
    if (t.name.ends_with("scale")) {
      const auto* u = to->find(t.name);
      ASSERT_TRUE(u) << t.name;
      EXPECT_TRUE(std::ranges::equal(*from->data(t), *to->data(*u))) << t.name;
      ++scales;
    }
  EXPECT_GT(scales, 20);

  test::edit_model(nv, dir / "odd.gguf", {{}, "blk.0.ffn_down.scale", [](std::vector<std::byte>& b) {
                                            float s;
                                            std::memcpy(&s, b.data(), 4);
                                            s *= 4;
                                            std::memcpy(b.data(), &s, 4);
                                          }});
  const auto measured = [&](const std::string& model) {
    return document(perplexity + " -m " + model + " -f " + path("text.txt") +
                    " -c 64 --chunks 2 --json")["ppl"]
        .get<double>();
  };
  EXPECT_EQ(measured(nv), measured(path("plain.gguf")));
  EXPECT_EQ(measured(nv), measured(path("rows.gguf")));
  EXPECT_NE(measured(nv), measured(path("odd.gguf")));

  const std::string gate = " --reference " + heads + " --gate 'ffn_down.weight: nmse<=0.01'";
  expect(validate + " " + nv + gate, 0, "");
  expect(validate + " " + path("odd.gguf") + gate, 1, "blk.0.ffn_down.weight");
  expect(quantize + " --allow-requantize " + nv + " " + path("q8.gguf") + " Q8_0", 0, "wrote");
  const auto quantized = gguf::reader::open(dir / "q8.gguf");
  ASSERT_TRUE(quantized);
  ASSERT_TRUE(quantized->find("blk.1.attn_q.input_scale"));
  EXPECT_FALSE(quantized->find("blk.1.attn_q.scale"));
}

TEST_F(model_programs, relayout_keeps_the_model) {
  expect(relayout + " " + heads + " " + path("rows.gguf"), 0, "");
  EXPECT_TRUE(*file::read_text(dir / "rows.gguf") == *file::read_text(rows));
  expect(relayout + " " + path("none") + " " + path("x.gguf"), 1, "none");
}

}  // namespace
}  // namespace quantal

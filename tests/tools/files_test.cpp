// Nothing of the user's is ever lost: what the programs do with outputs, standard streams, signals and odd inputs.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include <chrono>
#include <thread>

#include "file.hpp"
#include "json.hpp"
#include "shell.hpp"
#include "support/paths.hpp"
#include "synthetic.hpp"

namespace quantal {
namespace {

namespace fs = std::filesystem;
using test::expect;
using test::shell;

class files : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string text;
    for (int i = 0; text.size() < 3000; ++i)
      text += "Item " + std::to_string(i * 7919 % 1000) + " of the list; see section " + std::to_string(i) +
              ".\n";
    ASSERT_TRUE(file::write(dir / "text", text));
    fs::copy_file(test::data_file("/fixtures/fixture-v2lite-ik-bf16.gguf"), dir / "model");
    ASSERT_TRUE(file::write_raw(dir / "floats", std::vector<float>(512, 0.25f)));
    ASSERT_TRUE(file::write_raw(dir / "tokens", std::vector<std::int32_t>{1, 2, 3, 4, 5}));
    ASSERT_TRUE(file::write(dir / "rules", "attn_output=q8_0\n"));
    ASSERT_TRUE(file::write(dir / "gates", R"({"gates": [".: nmse<=1"]})"));
  }
  std::string path(const std::string& name) { return " " + (dir / name).string(); }
  std::string bytes(const std::string& name) {
    const auto b = file::read_text(dir / name);
    return b ? *b : "unreadable: " + b.error().message;
  }

  /// Every command that writes, with its output at the end.
  std::vector<std::string> writers() {
    return {quantize + " --custom-q-file" + path("rules") + path("model") + "%OUT% Q8_0",
            relayout + path("model") + "%OUT%",
            imatrix + " -m" + path("model") + " -f" + path("text") + " -c 64 --chunks 2 -o%OUT%",
            imatrix + " -m" + path("model") + " -f" + path("text") +
                " -c 64 --chunks 2 --output-format dat -o%OUT%",
            perplexity + " -m" + path("model") + " -f" + path("text") +
                " -c 64 --chunks 2 --kl-divergence-base%OUT%",
            perplexity + " -m" + path("model") + " --tokens" + path("tokens") + " --logits-out%OUT%",
            blocks + " quantize --format q8_0 --cols 256" + path("floats") + "%OUT%",
            blocks + " dequantize --format f32 --cols 256" + path("floats") + "%OUT%",
            validate + path("model") + " --reference" + path("model") + " --gates" + path("gates") +
                " -o json=%OUT%",
            convert + " " + dir.path().string() + "%OUT%"};
  }
  static std::string with(std::string command, const std::string& out) {
    const bool joined = command.find("=%OUT%") != std::string::npos;
    return command.replace(command.find("%OUT%"), 5, joined ? out.substr(1) : out);
  }

  test::temporary_folder dir;
  const std::string imatrix = QUANTAL_IMATRIX, perplexity = QUANTAL_PERPLEXITY, inspect = QUANTAL_INSPECT,
                    quantize = QUANTAL_QUANTIZE, relayout = QUANTAL_RELAYOUT, blocks = QUANTAL_BLOCKS,
                    validate = QUANTAL_VALIDATE, convert = QUANTAL_CONVERT;
};

TEST_F(files, inputs_are_never_outputs) {
  fs::create_hard_link(dir / "model", dir / "hard");
  fs::create_symlink("model", dir / "link");
  const auto text = bytes("text"), model = bytes("model"), floats = bytes("floats");
  for (const auto& c : writers())
    for (const char* input :
         {"model", "hard", "link", "text", "floats", "tokens", "rules", "gates", "./model"}) {
      const std::string name = fs::path(input).filename();
      if (name != "hard" && name != "link" && c.find("/" + name + " ") == std::string::npos &&
          c.find("/" + name + "%") == std::string::npos)
        continue;
      if ((name == "hard" || name == "link") && c.find("/model") == std::string::npos) continue;
      const auto o = shell(with(c, path(input)));
      EXPECT_NE(o.code, 0) << with(c, path(input));
      EXPECT_NE(o.text.find("is the input"), std::string::npos) << with(c, path(input)) << "\n" << o.text;
    }
  EXPECT_TRUE(text == bytes("text") && model == bytes("model") && floats == bytes("floats"));
  expect(imatrix + " -m" + path("model") + " -f" + path("text") + " -c 64 --chunks 2 -o" + path("i"), 0,
         "stored");
  const auto matrix = bytes("i");
  for (const auto& c :
       {quantize + " --imatrix" + path("i") + path("model") + path("i") + " Q8_0",
        imatrix + " --in-file" + path("i") + " -o" + path("i"),
        validate + path("model") + " --reference" + path("model") + " --imatrix" + path("i") +
            " -o json=" + (dir / "i").string(),
        blocks + " quantize --format q8_0 --cols 256 --importance" + path("i") + path("floats") + path("i")})
    EXPECT_NE(shell(c).text.find("is the input"), std::string::npos) << c;
  EXPECT_EQ(bytes("i"), matrix);
}

TEST_F(files, outputs_are_proven_before_the_work) {
  for (const auto& c : writers()) {
    for (const auto& [out, why] : {std::pair<std::string, const char*>{"none/x", "cannot create"},
                                   {"folder", "is a folder"},
                                   {"new/", "slash"},
                                   {std::string(300, 'x'), "too long"}}) {
      fs::create_directories(dir / "folder");
      // Inputs that are missing would be found later than the output.
      auto command = with(c, path(out));
      const auto o = shell(command);
      EXPECT_NE(o.code, 0) << command;
      EXPECT_NE(o.text.find(why), std::string::npos) << command << "\n" << o.text;
      EXPECT_EQ(o.text.find("PPL"), std::string::npos) << command << "\n" << o.text;
    }
  }
  EXPECT_EQ(dir.names(),
            (std::vector<std::string>{"floats", "folder", "gates", "model", "rules", "text", "tokens"}));
}

TEST_F(files, pipes_are_written_to) {
  for (const auto& c : writers()) {
    if (c.starts_with(convert)) continue;
    fs::remove(dir / "out"), fs::remove(dir / "pipe");
    ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
    ASSERT_EQ(shell(with(c, path("out"))).code, 0) << with(c, path("out"));
    const auto o = shell("timeout 60 cat" + path("pipe") + " >" + path("copy") + " & " +
                         with(c, path("pipe")) + "; rc=$?; wait; exit $rc");
    EXPECT_EQ(o.code, 0) << o.text;
    EXPECT_TRUE(bytes("copy") == bytes("out")) << c;
    EXPECT_TRUE(fs::is_fifo(dir / "pipe")) << c;
  }
}

TEST_F(files, device_nodes_stay) {
  for (const auto& c : writers()) {
    if (c.starts_with(convert)) continue;
    fs::remove(dir / "null");
    if (::mknod((dir / "null").c_str(), S_IFCHR | 0600, makedev(1, 3)) != 0)
      GTEST_SKIP() << "only root makes device nodes";
    if (shell("echo >" + path("null")).code != 0) GTEST_SKIP() << "device nodes do not work here";
    expect(with(c, path("null")), 0, "");
    EXPECT_TRUE(fs::is_character_file(dir / "null")) << c;
  }
}

TEST_F(files, closed_standard_streams) {
  for (const auto& c : writers()) {
    if (c.starts_with(convert)) continue;
    fs::remove(dir / "out");
    ASSERT_EQ(shell(with(c, path("out"))).code, 0) << with(c, path("out"));
    fs::rename(dir / "out", dir / "good");
    const bool prints = c.starts_with(quantize) || c.find("--kl-divergence-base") != std::string::npos;
    for (const char* closed : {" >&-", " >&- 2>&-", " <&- >&- 2>&-", " <&-", " 2>&-"}) {
      fs::remove(dir / "out");
      const auto o = shell(with(c, path("out")) + closed);
      const bool lost = prints && std::string(closed).find(" >&-") != std::string::npos;
      EXPECT_EQ(o.code, lost ? 1 : 0) << with(c, path("out")) << closed << "\n" << o.text;
      EXPECT_TRUE(bytes("out") == bytes("good")) << c << closed;
    }
  }
}

TEST_F(files, lost_output_is_a_failure) {
  if (!fs::exists("/dev/full")) GTEST_SKIP() << "no /dev/full";
  const std::string v = validate + path("model") + " --reference" + path("model");
  for (const auto& c :
       {inspect + path("model"), inspect + " --json" + path("model"), blocks + " list", blocks + " --help",
        quantize + " --help", quantize + " --dry-run" + path("model") + path("x") + " Q8_0",
        blocks + " error --format q8_0 --cols 256" + path("floats"),
        perplexity + " -m" + path("model") + " -f" + path("text") + " -c 64 --chunks 2"}) {
    expect(c + " >/dev/full", 1, "standard output: write failed");
    expect(c + " >&-", 1, "standard output: write failed");
  }
  for (const char* format : {"table", "json", "junit", "markdown"}) {
    expect(v + " -o " + format + " >/dev/full", 2, "standard output: write failed");
    expect(v + " -o " + format + "=/dev/full", 2, "/dev/full: write failed");
  }
  for (const auto& c : writers()) {
    if (c.starts_with(convert)) continue;
    EXPECT_NE(shell(with(c, " /dev/full")).text.find("write failed: No space"), std::string::npos) << c;
  }
}

TEST_F(files, an_existing_base_is_not_overwritten) {
  const std::string p = perplexity + " -m" + path("model") + " -f" + path("text") +
                        " -c 64 --chunks 2 --kl-divergence-base" + path("base");
  expect(p, 0, "PPL");
  const auto before = bytes("base");
  expect(p, 1, "base: exists; give --kl-divergence to compare with it, or --overwrite-base");
  EXPECT_TRUE(bytes("base") == before);
  expect(p + " --overwrite-base", 0, "PPL");
}

TEST_F(files, folders_as_inputs) {
  const std::string folder = " " + dir.path().string(), out = path("o");
  const std::string text = " -f" + path("text"), model = " -m" + path("model");
  for (const auto& c :
       {perplexity + model + " -f" + folder + " -c 64", perplexity + " -m" + folder + text,
        perplexity + model + " --kl-divergence --kl-divergence-base" + folder,
        perplexity + model + " --tokens" + folder + " --logits-out" + out,
        imatrix + model + " -f" + folder + " -o" + out, imatrix + " -m" + folder + text + " -o" + out,
        imatrix + " --in-file" + folder + " -o" + out, inspect + folder, quantize + folder + out + " Q8_0",
        quantize + " --imatrix" + folder + path("model") + out + " Q8_0",
        quantize + " --custom-q-file" + folder + path("model") + out + " Q8_0",
        quantize + " --target-bpw 5 --sensitivity" + folder + path("model") + out + " Q8_0",
        relayout + folder + out, blocks + " quantize --format q8_0 --cols 256" + folder + out,
        blocks + " quantize --format q8_0 --cols 256 --importance" + folder + path("floats") + out})
    expect(c, 1, ": is a folder");
  const std::string v = validate + path("model") + " --reference" + path("model");
  for (const auto& c : {v + " --text" + folder, v + " --imatrix" + folder, v + " --gates" + folder,
                        validate + folder + " --reference" + path("model"),
                        validate + path("model") + " --reference" + folder})
    expect(c, 2, ": is a folder");
  EXPECT_FALSE(fs::exists(dir / "o"));
}

TEST_F(files, pipes_as_texts) {
  const std::string model = " -m" + path("model");
  expect("cat" + path("text") + " | " + perplexity + model + " -f /dev/stdin -c 64 --chunks 2", 0,
         "Final estimate");
  expect("cat" + path("rules") + " | " + quantize + " --dry-run --custom-q-file /dev/stdin" + path("model") +
             path("o") + " Q4_0",
         0, "rule");
  ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
  expect(inspect + path("pipe"), 1, "not a regular file");
}

TEST_F(files, patterns_end) {
  const std::string endless = " '(.*)*(.*)*(.*)*x_";
  expect("timeout 20 " + quantize + " --dry-run --custom-q" + endless + "=q8_0'" + path("model") + path("o") +
             " Q4_0",
         1, "--custom-q: the regular expression '(.*)*(.*)*(.*)*x_' on ");
  expect("timeout 20 " + validate + path("model") + " --reference" + path("model") + " --gate" + endless +
             ": nmse<=1'",
         2, "too many steps");
  ASSERT_TRUE(
      file::write(dir / "study", R"({"classes": [{"tensors": "(.*)*(.*)*(.*)*x_", "kld_per_nmse": 1}]})"));
  expect("timeout 20 " + quantize + " --target-bpw 8 --sensitivity" + path("study") + path("model") +
             path("o") + " Q8_0",
         1, "too many steps");
}

TEST_F(files, signals_leave_nothing) {
  // Sixteen million weights take iq2_kt longer than the wait.
  gguf::metadata meta;
  meta.set("general.architecture", std::string("llama"));
  std::vector<gguf::tensor_info> tensors;
  for (int i = 0; i < 2; ++i)
    tensors.push_back({"blk." + std::to_string(i) + ".ffn_up.weight", f32::gguf_id, 2, {4096, 2048, 1, 1}});
  test::write_model(dir / "big", meta, tensors);
  fs::create_directory(dir / "out");
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGKILL}) {
    const pid_t child = ::fork();
    if (child == 0) {
      const int null = ::open("/dev/null", O_RDWR);
      ::dup2(null, 1), ::dup2(null, 2);
      ::execl(quantize.c_str(), quantize.c_str(), "--require-imatrix", "none", (dir / "big").c_str(),
              (dir / "out" / "x.gguf").c_str(), "IQ2_KT", "1", static_cast<char*>(nullptr));
      ::_exit(127);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(400));
    ::kill(child, signal);
    int state = 0;
    ASSERT_EQ(::waitpid(child, &state, 0), child);
    EXPECT_TRUE(WIFSIGNALED(state) && WTERMSIG(state) == signal) << signal << ": " << state;
    EXPECT_TRUE(fs::is_empty(dir / "out")) << signal;
  }
}

}  // namespace
}  // namespace quantal

#pragma once

// Figures by gnuplot, in SVG, PNG or PDF.

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include "outputs.hpp"

extern char** environ;  // POSIX declares it in no header

namespace program {

/// What gnuplot prints for a script. Throws unroll::error where it is missing, fails or is ended.
inline std::string gnuplot(const std::string& script) {
  using unroll::fail;
  const unroll::detail::file in(std::tmpfile()), out(std::tmpfile());
  if (!in || !out || std::fputs(script.c_str(), in.get()) < 0 || std::fflush(in.get()) != 0 ||
      lseek(fileno(in.get()), 0, SEEK_SET) != 0)
    fail("gnuplot", "script", std::string("cannot be written: ") + std::strerror(errno));

  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, fileno(in.get()), STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&files, fileno(out.get()), STDOUT_FILENO);
  posix_spawnattr_t how;
  posix_spawnattr_init(&how);
  sigset_t pipe;
  sigemptyset(&pipe);
  sigaddset(&pipe, SIGPIPE);
  posix_spawnattr_setsigdefault(&how, &pipe);
  posix_spawnattr_setflags(&how, POSIX_SPAWN_SETSIGDEF);
  std::string name = "gnuplot";
  char* arguments[] = {name.data(), nullptr};
  pid_t child = 0;
  const int problem = posix_spawnp(&child, "gnuplot", &files, &how, arguments, environ);
  posix_spawnattr_destroy(&how);
  posix_spawn_file_actions_destroy(&files);
  if (problem == ENOENT)
    fail("gnuplot", "figure", "gnuplot is not installed (Debian, Ubuntu: apt-get install gnuplot-nox)");
  if (problem != 0)
    fail("gnuplot", "figure", std::string("gnuplot cannot be started: ") + std::strerror(problem));
  int status = 0;
  while (waitpid(child, &status, 0) == -1)
    if (errno != EINTR) fail("gnuplot", "figure", std::string("gnuplot is lost: ") + std::strerror(errno));
  if (WIFSIGNALED(status))
    fail("gnuplot", "figure", std::string("gnuplot was ended by a signal: ") + strsignal(WTERMSIG(status)));
  if (WEXITSTATUS(status) != 0)
    fail("gnuplot", "figure", "gnuplot ended with status " + std::to_string(WEXITSTATUS(status)));

  std::string bytes;
  char part[1 << 14];
  std::rewind(out.get());
  while (const std::size_t n = std::fread(part, 1, sizeof part, out.get())) bytes.append(part, n);
  if (bytes.empty()) fail("gnuplot", "figure", "gnuplot printed nothing");
  return bytes;
}

/// The terminal of gnuplot for the ending of a file. Throws unroll::error for other endings, and where
/// gnuplot lacks the terminal.
inline std::string terminal_for(const std::string& file) {
  std::string ending = std::filesystem::path(file).extension().string();
  std::transform(ending.begin(), ending.end(), ending.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  std::vector<std::string> wanted;
  if (ending == ".svg") wanted = {"svg"};
  if (ending == ".png") wanted = {"pngcairo", "png"};
  if (ending == ".pdf") wanted = {"pdfcairo"};
  if (wanted.empty()) unroll::fail("figure", "\"" + file + "\"", "ends in none of .svg, .png, .pdf");
  const std::string there = gnuplot("set print '-'\nprint ' ', GPVAL_TERMINALS, ' '\n");
  for (const auto& terminal : wanted)
    if (there.find(" " + terminal + " ") != std::string::npos) return terminal;
  unroll::fail("figure", "\"" + file + "\"",
               "needs the terminal " + wanted.front() + ", which this gnuplot lacks");
}

/// For CLI11: empty, or why the figure cannot be drawn.
inline std::string drawable(const std::string& file) {
  try {
    terminal_for(file);
    return writable(file);
  } catch (const unroll::error& e) {
    return e.what();
  }
}

/// Draws a figure of width x height pixels (72 to the inch in a PDF) and replaces the file in one step.
/// `text`: "enhanced" where ^ and _ stand for raised and lowered letters.
inline void draw_figure(const std::string& file, int width, int height, const std::string& script,
                        const std::string& text = "noenhanced") {
  const std::string terminal = terminal_for(file);
  const auto size = [&](int pixels) {
    return terminal == "pdfcairo" ? std::to_string(pixels / 72.0) + "in" : std::to_string(pixels);
  };
  const std::string how = "set terminal " + terminal + " size " + size(width) + "," + size(height) + " " +
                          text + " background 'white' font 'sans,12'\n";
  unroll::write_file(file, gnuplot(how + script), "figure");
}

/// A string inside a gnuplot script.
inline std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text)
    out += c == '\'' ? "''" : std::string(1, static_cast<unsigned char>(c) < ' ' ? ' ' : c);
  return out + "'";
}

}  // namespace program

// The kvant command: one subcommand a file, each a host of the plugin like any other.
#include "commands.hpp"

#if defined(KVANT_HAS_CONFORM)
void add_conform_command(CLI::App& app);
#endif

int main(int argc, char** argv) {
  using namespace kvant::tools;
  CLI::App app{"kvant: a quantized, paged KV cache on any Vulkan device"};
  app.require_subcommand(1);
  app.set_help_all_flag("--help-all", "help of every subcommand");
  add_info_command(app);
  add_generate_command(app);
  add_eval_command(app);
  add_bench_command(app);
  add_tune_command(app);
  add_replay_command(app);
  add_top_command(app);
  add_report_command(app);
  add_memory_curve_command(app);
  add_plan_formats_command(app);
  add_cool_curve_command(app);
#if defined(KVANT_HAS_CONFORM)
  add_conform_command(app);
#endif
  try {
    app.parse(argc, argv);
  } catch (const CLI::RuntimeError& error) {
    return error.get_exit_code();
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : static_cast<int>(Exit::kUsage);
  }
  return exit_status();
}

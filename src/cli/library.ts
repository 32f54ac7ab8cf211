/** What the command line asks of the library. `main` takes it as a parameter, so that tests can pass their own. */
import type {
  ConvertOptions,
  ConvertReport,
  DoctorReport,
  FormatsReport,
  InspectReport,
  LogitsOptions,
  LogitsReport,
  PlanOptions,
  PlanReport,
  RunOptions,
  VerifyOptions,
  VerifyReport,
} from "../api.ts";

export interface InspectOptions extends RunOptions {
  readonly tensors?: boolean;
}

export interface DoctorOptions extends Pick<RunOptions, "threads" | "backend"> {
  readonly kernels?: boolean;
}

export interface Library {
  plan(src: string, dst: string, options: PlanOptions): Promise<PlanReport>;
  convert(src: string, dst: string, options: ConvertOptions): Promise<ConvertReport>;
  recast(src: string, dst: string, options: ConvertOptions): Promise<ConvertReport>;
  verify(a: string, b: string, options: VerifyOptions): Promise<VerifyReport>;
  logits(src: string, options: LogitsOptions): Promise<LogitsReport>;
  inspect(src: string, options: InspectOptions): Promise<InspectReport>;
  doctor(options: DoctorOptions): Promise<DoctorReport>;
  formats(): FormatsReport;
}

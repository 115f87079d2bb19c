// Runs a program's Main and ends the process when it returns. Mono 6.8 closes its kept connections
// while it shuts down, and one time in ten hangs or aborts over it, whatever the program did.
using System;
using System.Reflection;
using System.Runtime.InteropServices;

static class RunAndExit
{
    [DllImport("libc")]
    static extern void _exit(int status);

    static void Main(string[] arguments)
    {
        var status = (int)Assembly.LoadFrom(arguments[0]).EntryPoint.Invoke(null, null);
        Console.Out.Flush();
        Console.Error.Flush();
        _exit(status);
    }
}

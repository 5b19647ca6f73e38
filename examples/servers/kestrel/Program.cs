// ASP.NET Core on Kestrel. UseSystemd() takes the sockets that LISTEN_PID and LISTEN_FDS tell of; without them Kestrel
// binds what ASPNETCORE_URLS says.
var builder = WebApplication.CreateBuilder(args);
builder.WebHost.ConfigureKestrel(options => options.UseSystemd());
var app = builder.Build();
app.MapGet("/", () => "hello\n");
app.Run();
